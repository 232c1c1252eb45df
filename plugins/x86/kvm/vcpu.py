"""An x86 vCPU: its registers and everything else that is its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from cpufw.errors import KvmError
from cpufw.kvm import VCPU, Exit, InternalErrorExit
from cpufw.kvm.handle import constant
from cpufw.kvm.native import ffi as core_ffi
from cpufw.kvm.native import lib as core_lib

from .cpuid import CpuidEntry, entries_struct, read_entries
from .exits import DebugExit, HypervExit, IoapicEoiExit, MsrExit
from .msrs import read_known_msrs, read_msrs, write_msrs
from .native import ffi, lib
from .structs import DebugRegs, Fpu, Regs, Sregs, Sregs2, Struct, VcpuEvents
from .sync import SyncRegs

S = TypeVar("S", bound=Struct)


class BreakpointKind(IntEnum):
    """What trips a hardware breakpoint: the R/W field of DR7 (Intel SDM vol. 3B, 18.2.4)."""

    EXECUTE = 0
    WRITE = 1
    ACCESS = 3


class Breakpoint(NamedTuple):
    """A hardware breakpoint on `length` (1, 2, 4 or 8) bytes at a linear address."""

    address: int
    kind: BreakpointKind = BreakpointKind.EXECUTE
    length: int = 1


class Translation(NamedTuple):
    """Where a linear address leads (KVM_TRANSLATE)."""

    physical_address: int
    valid: bool
    writeable: bool
    usermode: bool


class X86VCPU(VCPU):
    """A vCPU made by `X86VM.create_vcpu`.

    `initial_lapic` are the registers of its local APIC as KVM made it; empty without one.
    """

    initial_lapic = b""
    _sync: SyncRegs | None = None

    # Registers

    @property
    def sync_regs(self) -> SyncRegs:
        """The registers in the run page, from the first use on kept there by every run."""
        if self._sync is None:
            self._sync = SyncRegs(self)
        return self._sync

    def _settle(self) -> None:
        if self._sync is not None:
            self._sync.settle()

    def get_regs(self) -> Regs:
        """General registers (KVM_GET_REGS)."""
        self._settle()
        return self._get("KVM_GET_REGS", lib.KVM_GET_REGS, Regs())

    def set_regs(self, regs: Regs) -> None:
        """Set all the general registers (KVM_SET_REGS)."""
        self._settle()
        self.ioctl("KVM_SET_REGS", lib.KVM_SET_REGS, regs)

    def get_sregs(self) -> Sregs:
        """Segment, control and table registers (KVM_GET_SREGS)."""
        self._settle()
        return self._get("KVM_GET_SREGS", lib.KVM_GET_SREGS, Sregs())

    def set_sregs(self, sregs: Sregs) -> None:
        """Set them all (KVM_SET_SREGS)."""
        self._settle()
        self.ioctl("KVM_SET_SREGS", lib.KVM_SET_SREGS, sregs)

    def get_sregs2(self) -> Sregs2:
        """The same with the PDPTEs, where KVM_CAP_SREGS2 is there (KVM_GET_SREGS2)."""
        self._settle()
        return self._get("KVM_GET_SREGS2", lib.KVM_GET_SREGS2, Sregs2())

    def set_sregs2(self, sregs: Sregs2) -> None:
        """Set them all (KVM_SET_SREGS2)."""
        self._settle()
        self.ioctl("KVM_SET_SREGS2", lib.KVM_SET_SREGS2, sregs)

    def get_debugregs(self) -> DebugRegs:
        """The guest's own debug registers (KVM_GET_DEBUGREGS)."""
        return self._get("KVM_GET_DEBUGREGS", lib.KVM_GET_DEBUGREGS, DebugRegs())

    def set_debugregs(self, debugregs: DebugRegs) -> None:
        """Set them all (KVM_SET_DEBUGREGS)."""
        self.ioctl("KVM_SET_DEBUGREGS", lib.KVM_SET_DEBUGREGS, debugregs)

    # Floating point and vectors

    def get_fpu(self) -> Fpu:
        """X87 and SSE state (KVM_GET_FPU)."""
        return self._get("KVM_GET_FPU", lib.KVM_GET_FPU, Fpu())

    def set_fpu(self, fpu: Fpu) -> None:
        """Set it all (KVM_SET_FPU)."""
        self.ioctl("KVM_SET_FPU", lib.KVM_SET_FPU, fpu)

    def get_xsave(self) -> bytes:
        """The XSAVE area, in the uncompacted format (KVM_GET_XSAVE2, else KVM_GET_XSAVE)."""
        size = self.vm.check_extension("KVM_CAP_XSAVE2")
        area = ffi.new("char[]", size or _XSAVE_BYTES)
        if size:
            self.ioctl("KVM_GET_XSAVE2", lib.KVM_GET_XSAVE2, area)
        else:
            self.ioctl("KVM_GET_XSAVE", lib.KVM_GET_XSAVE, area)
        return bytes(ffi.buffer(area))

    def set_xsave(self, state: bytes) -> None:
        """Set what `get_xsave` returned (KVM_SET_XSAVE)."""
        size = self.vm.check_extension("KVM_CAP_XSAVE2") or _XSAVE_BYTES
        if len(state) != size:
            raise KvmError(
                f"{self.name}: an XSAVE area of {len(state)} bytes instead of {size}",
                "KVM_SET_XSAVE",
            )
        self.ioctl("KVM_SET_XSAVE", lib.KVM_SET_XSAVE, ffi.from_buffer(state))

    def get_xcrs(self) -> dict[int, int]:
        """The extended control registers by number: 0 is XCR0 (KVM_GET_XCRS)."""
        xcrs = ffi.new("struct kvm_xcrs *")
        self.ioctl("KVM_GET_XCRS", lib.KVM_GET_XCRS, xcrs)
        return {one.xcr: one.value for one in xcrs.xcrs[0 : xcrs.nr_xcrs]}

    def set_xcrs(self, values: Mapping[int, int]) -> None:
        """Set extended control registers (KVM_SET_XCRS)."""
        xcrs = ffi.new("struct kvm_xcrs *", {"nr_xcrs": len(values)})
        if len(values) > len(xcrs.xcrs):
            raise KvmError(f"KVM takes {len(xcrs.xcrs)} XCRs, not {len(values)}", "KVM_SET_XCRS")
        for place, (number, value) in zip(xcrs.xcrs, values.items(), strict=False):
            place.xcr, place.value = number, value
        self.ioctl("KVM_SET_XCRS", lib.KVM_SET_XCRS, xcrs)

    # CPUID and MSRs

    def get_cpuid2(self) -> tuple[CpuidEntry, ...]:
        """The CPUID that KVM granted the guest (KVM_GET_CPUID2)."""
        name, request = "KVM_GET_CPUID2", lib.KVM_GET_CPUID2
        return read_entries(lambda table: self.ioctl(name, request, table))

    def set_cpuid2(self, entries: Iterable[CpuidEntry]) -> None:
        """Ask for a CPUID, before the first run; `get_cpuid2` tells what came of it.

        (KVM_SET_CPUID2)
        """
        self.ioctl("KVM_SET_CPUID2", lib.KVM_SET_CPUID2, entries_struct(entries))

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """Read MSRs; KvmError names the first one refused (KVM_GET_MSRS)."""
        return read_msrs(self, indices)

    def get_known_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """Read those of the MSRs that KVM reads at all (KVM_GET_MSRS)."""
        return read_known_msrs(self, indices)

    def set_msrs(self, values: Mapping[int, int]) -> None:
        """Write MSRs; KvmError names the first one refused (KVM_SET_MSRS)."""
        write_msrs(self, values)

    def enable_cap(self, capability: str, *arguments: int) -> None:
        """Turn a capability on for this vCPU (KVM_ENABLE_CAP); KvmError names it if absent."""
        if not self.vm.check_extension(capability):
            raise KvmError(f"this KVM does not have {capability}", "KVM_ENABLE_CAP")
        request = core_ffi.new(
            "struct kvm_enable_cap *", {"cap": constant(capability), "args": arguments}
        )
        self.ioctl("KVM_ENABLE_CAP", core_lib.KVM_ENABLE_CAP, request)

    def enable_evmcs(self) -> int:
        """Let the guest run its own guests by enlightened VMCSs; the versions KVM has of them.

        The lowest in bits 7:0, the highest in bits 15:8 (KVM_CAP_HYPERV_ENLIGHTENED_VMCS).
        """
        versions = ffi.new("__u16 *")
        address = int(ffi.cast("uintptr_t", versions))
        self.enable_cap("KVM_CAP_HYPERV_ENLIGHTENED_VMCS", address)
        return int(versions[0])

    def get_supported_hv_cpuid(self) -> tuple[CpuidEntry, ...]:
        """Hyper-V's leaves as KVM can offer them (KVM_GET_SUPPORTED_HV_CPUID)."""
        name, request = "KVM_GET_SUPPORTED_HV_CPUID", lib.KVM_GET_SUPPORTED_HV_CPUID
        return read_entries(lambda table: self.ioctl(name, request, table))

    def setup_mce(self, mcg_cap: int) -> None:
        """Give IA32_MCG_CAP a value, and with it machine-check banks (KVM_X86_SETUP_MCE)."""
        self.ioctl("KVM_X86_SETUP_MCE", lib.KVM_X86_SETUP_MCE, ffi.new("__u64 *", mcg_cap))

    def get_tsc_khz(self) -> int:
        """The guest's TSC frequency (KVM_GET_TSC_KHZ)."""
        return self.ioctl("KVM_GET_TSC_KHZ", lib.KVM_GET_TSC_KHZ)

    def set_tsc_khz(self, khz: int) -> None:
        """Set it, where the host can scale its TSC to that (KVM_SET_TSC_KHZ)."""
        self.ioctl("KVM_SET_TSC_KHZ", lib.KVM_SET_TSC_KHZ, khz)

    def get_tsc_offset(self) -> int:
        """What the guest's TSC is ahead of the host's, modulo 2**64 (KVM_VCPU_TSC_OFFSET).

        Raises KvmError before Linux 5.16 (KVM_CAP_VCPU_ATTRIBUTES).
        """
        offset = ffi.new("__u64 *")
        self._tsc_attribute("KVM_GET_DEVICE_ATTR", lib.KVM_GET_DEVICE_ATTR, offset)
        return int(offset[0])

    def set_tsc_offset(self, offset: int) -> None:
        """Set it: vCPUs of one offset and frequency count alike (KVM_VCPU_TSC_OFFSET)."""
        place = ffi.new("__u64 *", offset)
        self._tsc_attribute("KVM_SET_DEVICE_ATTR", lib.KVM_SET_DEVICE_ATTR, place)

    def _tsc_attribute(self, name: str, request: int, offset: Any) -> None:
        attribute = ffi.new("struct kvm_device_attr *")
        attribute.group, attribute.attr = lib.KVM_VCPU_TSC_CTRL, lib.KVM_VCPU_TSC_OFFSET
        attribute.addr = int(ffi.cast("uintptr_t", offset))
        self.ioctl(name, request, attribute)

    # Interrupts and events

    def get_lapic(self) -> bytes:
        """The local APIC's registers, by their xAPIC offsets (KVM_GET_LAPIC)."""
        state = ffi.new("struct kvm_lapic_state *")
        self.ioctl("KVM_GET_LAPIC", lib.KVM_GET_LAPIC, state)
        return bytes(ffi.buffer(state))

    def set_lapic(self, state: bytes) -> None:
        """Set what `get_lapic` returned (KVM_SET_LAPIC)."""
        lapic = ffi.new("struct kvm_lapic_state *")
        if len(state) != len(lapic.regs):
            raise KvmError(
                f"{self.name}: local APIC registers of {len(state)} bytes instead of "
                f"{len(lapic.regs)}",
                "KVM_SET_LAPIC",
            )
        ffi.memmove(lapic, state, len(state))
        self.ioctl("KVM_SET_LAPIC", lib.KVM_SET_LAPIC, lapic)

    def get_vcpu_events(self) -> VcpuEvents:
        """Events pending or being delivered (KVM_GET_VCPU_EVENTS)."""
        self._settle()
        return self._get("KVM_GET_VCPU_EVENTS", lib.KVM_GET_VCPU_EVENTS, VcpuEvents())

    def set_vcpu_events(self, events: VcpuEvents) -> None:
        """Set them; `flags` say which optional parts are meant (KVM_SET_VCPU_EVENTS)."""
        self._settle()
        self.ioctl("KVM_SET_VCPU_EVENTS", lib.KVM_SET_VCPU_EVENTS, events)

    def nmi(self) -> None:
        """Queue an NMI; waits while the vCPU runs in another thread, so kick first (KVM_NMI)."""
        self.ioctl("KVM_NMI", lib.KVM_NMI)

    def interrupt(self, vector: int) -> None:
        """Queue an interrupt, in a VM with no in-kernel controller (KVM_INTERRUPT)."""
        request = ffi.new("struct kvm_interrupt *", {"irq": vector})
        self.ioctl("KVM_INTERRUPT", lib.KVM_INTERRUPT, request)

    # Debugging and the rest

    def set_guest_debug(
        self,
        *,
        single_step: bool = False,
        breakpoints: Sequence[Breakpoint] = (),
        software_breakpoints: bool = False,
    ) -> None:
        """Debug the guest from outside; called with nothing, stop that (KVM_SET_GUEST_DEBUG).

        `single_step`: each instruction ends in a `DebugExit`. `software_breakpoints`: so does
        each `int3`. At most four `breakpoints`.
        """
        if len(breakpoints) > _MOST_BREAKPOINTS:
            raise KvmError(
                f"{len(breakpoints)} hardware breakpoints: x86 has {_MOST_BREAKPOINTS}",
                "KVM_SET_GUEST_DEBUG",
            )
        debug = ffi.new("struct kvm_guest_debug *")
        if single_step:
            debug.control |= lib.KVM_GUESTDBG_SINGLESTEP
        if software_breakpoints:
            debug.control |= lib.KVM_GUESTDBG_USE_SW_BP
        if breakpoints:
            debug.control |= lib.KVM_GUESTDBG_USE_HW_BP
            for number, breakpoint in enumerate(breakpoints):
                debug.arch.debugreg[number] = breakpoint.address
                debug.arch.debugreg[7] |= _dr7_bits(number, breakpoint)
        if debug.control:
            debug.control |= lib.KVM_GUESTDBG_ENABLE
        self.ioctl("KVM_SET_GUEST_DEBUG", lib.KVM_SET_GUEST_DEBUG, debug)

    def translate(self, linear_address: int) -> Translation:
        """Walk the guest's page tables (KVM_TRANSLATE)."""
        walk = ffi.new("struct kvm_translation *", {"linear_address": linear_address})
        self.ioctl("KVM_TRANSLATE", lib.KVM_TRANSLATE, walk)
        return Translation(
            walk.physical_address, bool(walk.valid), bool(walk.writeable), bool(walk.usermode)
        )

    def kvmclock_ctrl(self) -> None:
        """Tell the guest that it was paused, so that no watchdog barks (KVM_KVMCLOCK_CTRL)."""
        self.ioctl("KVM_KVMCLOCK_CTRL", lib.KVM_KVMCLOCK_CTRL)

    def _decode(self, reason: int) -> Exit:
        if reason == _INTERNAL_ERROR:  # first: guests on PVM come here thousands of times
            data = self._exit
            words = tuple(ffi.unpack(data.words, data.ndata))
            instruction: bytes = ffi.buffer(data.insn)[: data.insn_size]
            return InternalErrorExit(data.code, words, instruction)
        page = self._vcpu.run
        match reason:
            case lib.KVM_EXIT_DEBUG:
                debug = lib.cpufw_debug_exit(page)
                return DebugExit(debug.exception, debug.pc, debug.dr6, debug.dr7)
            case lib.KVM_EXIT_X86_RDMSR | lib.KVM_EXIT_X86_WRMSR:
                msr = lib.cpufw_msr_exit(page)
                is_write = reason == lib.KVM_EXIT_X86_WRMSR
                exit = MsrExit(msr.index, is_write, msr.value if is_write else 0, msr.reason)
                self._pending = exit
                return exit
            case lib.KVM_EXIT_HYPERV:
                hyperv = HypervExit()
                self._pending = hyperv
                return hyperv
            case lib.KVM_EXIT_IOAPIC_EOI:
                return IoapicEoiExit(lib.cpufw_eoi_vector(page))
        return super()._decode(reason)

    def _get(self, name: str, request: int, struct: S) -> S:
        self.ioctl(name, request, struct)
        return struct


_INTERNAL_ERROR: int = lib.KVM_EXIT_INTERNAL_ERROR
_XSAVE_BYTES = 4096  # struct kvm_xsave without KVM_CAP_XSAVE2
_MOST_BREAKPOINTS = 4
_DR7_LENGTHS = {1: 0, 2: 1, 8: 2, 4: 3}  # Intel SDM vol. 3B, 18.2.4: LEN0-LEN3


def _dr7_bits(number: int, breakpoint: Breakpoint) -> int:
    length = _DR7_LENGTHS.get(breakpoint.length)
    if length is None or (breakpoint.kind is BreakpointKind.EXECUTE and length):
        raise KvmError(
            f"hardware breakpoint at {breakpoint.address:#x}: length {breakpoint.length} "
            "instead of 1 for execution, or 1, 2, 4 or 8 for data",
            "KVM_SET_GUEST_DEBUG",
        )
    local_enable = 1 << 2 * number
    return local_enable | (breakpoint.kind | length << 2) << 16 + 4 * number
