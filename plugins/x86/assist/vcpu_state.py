"""A KVM vCPU as assisted instructions see it, and what becomes of it afterwards."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cpufw_x86.assist.cpu_state import RFLAGS, RIP, CpuState
from cpufw_x86.assist.decode import LONGEST, Instruction
from cpufw_x86.assist.faults import DEBUG, Fault, Unassisted
from cpufw_x86.assist.instructions import found_at
from cpufw_x86.assist.table import Assisted
from cpufw_x86.assist.vector_state import VectorState
from cpufw_x86.cpuid import CpuidLeaf, CpuidTable
from cpufw_x86.kvm import sync
from cpufw_x86.kvm.native import ffi, lib

if TYPE_CHECKING:
    from cpufw_x86.assist.hidden_state import HiddenState
    from cpufw_x86.assist.physical import PhysicalMemory
    from cpufw_x86.kvm import X86VCPU

_XSAVE_BYTES = 4096  # of struct kvm_xsave, where there is no KVM_CAP_XSAVE2
_RF, _TF = 1 << 16, 1 << 8
_RF_AND_TF = _RF | _TF
_REGS, _REGS_AND_SREGS = sync.REGS, sync.REGS | sync.SREGS
_ADDRESS_MASKS = {64: 0xFFFF_FFFF_FFFF_FFFF, 32: 0xFFFF_FFFF, 16: 0xFFFF}  # of rip, by mode
_DR6_SINGLE_STEP = 1 << 14
_CR4_PGE = 1 << 7
_WORD = 0xFFFF_FFFF_FFFF_FFFF


class VcpuState:
    """The vCPU's `CpuState`, with its run page behind it."""

    def __init__(self, vcpu: X86VCPU, memory: PhysicalMemory, hidden: HiddenState | None) -> None:
        self._vcpu = vcpu
        self._sync = vcpu.sync_regs
        self._interrupt = self._sync.events.interrupt
        words = CpuidTable(
            CpuidLeaf(e.function, e.index, e.eax, e.ebx, e.ecx, e.edx) for e in vcpu.get_cpuid2()
        ).words()
        self.cpu = CpuState(
            self._sync.regs, self._sync.sregs, memory, VectorState(self), words, self, hidden
        )
        self.counts: Counter[str] = Counter()
        """How often each instruction was finished on this vCPU."""

    def begin(self) -> CpuState:
        """The state as the guest left it."""
        self._xcr0: int | None = None
        self.cpu.vectors.forget()
        self.cpu.begin()
        return self.cpu

    def advance(self, length: int) -> None:
        """The instruction is done: go on behind it, with the trap that it asked for."""
        cpu, g = self.cpu, self.cpu.g
        g[RIP] = g[RIP] + length & _ADDRESS_MASKS[cpu.bits]
        flags = g[RFLAGS]
        if flags & _RF_AND_TF:
            g[RFLAGS] = flags & ~_RF
            if flags & _TF and cpu.trap is None:
                self._single_step()
                cpu.trap = DEBUG
        cpu.vectors.flush()
        parts = _REGS_AND_SREGS if cpu.sregs_changed else _REGS
        interrupt = self._interrupt
        if interrupt.shadow:  # of the STI or MOV SS before
            interrupt.shadow = 0
            parts |= sync.EVENTS
        if cpu.trap is not None:
            self._raise(cpu.trap, None, cpu.trap_is_interrupt)
            parts |= sync.EVENTS
        self._sync.mark(parts)

    def raise_fault(self, fault: Fault) -> None:
        """Let the guest have the exception, with rip at the instruction."""
        parts = sync.REGS | sync.EVENTS
        self.cpu.g[RFLAGS] |= _RF  # of the saved image: Intel SDM vol. 3B, 18.3.1.1
        if fault.cr2 is not None:
            self._sync.sregs.cr2 = fault.cr2
            parts |= sync.SREGS
        self._raise(fault.vector, fault.error_code, False)
        self._sync.mark(parts)

    def _raise(self, vector: int, error_code: int | None, is_interrupt: bool) -> None:
        events = self._sync.events
        if is_interrupt:
            events.interrupt.injected = events.interrupt.soft = 1
            events.interrupt.nr = vector
            return
        exception = events.exception
        exception.injected, exception.pending, exception.nr = 1, 0, vector
        exception.has_error_code = error_code is not None
        exception.error_code = error_code or 0

    def _single_step(self) -> None:
        debug = self._vcpu.get_debugregs()
        debug.dr6 |= _DR6_SINGLE_STEP
        self._vcpu.set_debugregs(debug)

    def instruction(self, code: bytes) -> tuple[Instruction, Assisted]:
        """What is at rip; `code` is what KVM fetched of it. Raises `Unassisted`."""
        bits = self.cpu.bits
        found = found_at(code, bits)
        if not found:  # KVM gave only a part of it, or nothing
            found = found_at(code + self._fetch(len(code)), bits)
        if isinstance(found, str):
            raise Unassisted(found or "the bytes are no instruction that it knows")
        return found

    def _fetch(self, start: int) -> bytes:
        """What follows the first `start` bytes at rip, as far as it can be read."""
        cpu, fetched = self.cpu, b""
        base = 0 if cpu.bits == 64 else cpu.sregs.cs.base
        for at in range(start, LONGEST):
            try:
                fetched += cpu.read(base + cpu.g[RIP] + at & _WORD, 1, system=True)
            except (Fault, Unassisted):
                break
        return fetched

    # What instructions ask for beyond registers and memory: Platform and vector_state.Backing

    def get_msr(self, index: int) -> int:
        """The MSR."""
        return self._vcpu.get_msrs([index])[index]

    def get_xcr0(self) -> int:
        """XCR0."""
        if self._xcr0 is None:
            # Not X86VCPU.get_xcrs: this is on the way of every XSAVE.
            self._vcpu.ioctl("KVM_GET_XCRS", lib.KVM_GET_XCRS, self._xcrs)
            self._xcr0 = int(self._xcrs.xcrs[0].value)  # the only one that there is
        return self._xcr0

    def set_xcr0(self, value: int) -> None:
        """Set XCR0."""
        self._vcpu.set_xcrs({0: value})
        self._xcr0 = value

    def flush_tlb(self) -> None:
        """Make KVM forget what it knows of the guest's page tables."""
        # Only a change of CR4 makes KVM_SET_SREGS do that.
        sregs = self._sync.sregs
        for _ in range(2):
            sregs.cr4 ^= _CR4_PGE
            self._vcpu.ioctl("KVM_SET_SREGS", lib.KVM_SET_SREGS, sregs)

    @cached_property
    def _xcrs(self) -> Any:
        return ffi.new("struct kvm_xcrs *")

    @cached_property
    def _xsave(self) -> tuple[bytearray, Any]:
        """The area, and where KVM finds it."""
        area = bytearray(self._vcpu.vm.check_extension("KVM_CAP_XSAVE2") or _XSAVE_BYTES)
        return area, ffi.from_buffer(area)

    def get_xsave(self) -> bytearray:
        """The XSAVE area, the same object each time."""
        area, place = self._xsave
        if len(area) > _XSAVE_BYTES:
            self._vcpu.ioctl("KVM_GET_XSAVE2", lib.KVM_GET_XSAVE2, place)
        else:
            self._vcpu.ioctl("KVM_GET_XSAVE", lib.KVM_GET_XSAVE, place)
        return area

    def set_xsave(self, area: bytearray) -> None:
        """Set it; `area` is what `get_xsave` returned."""
        own, place = self._xsave
        assert area is own
        self._vcpu.ioctl("KVM_SET_XSAVE", lib.KVM_SET_XSAVE, place)
