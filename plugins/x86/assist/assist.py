"""Emulation assist: instructions that KVM hands back unfinished are finished here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cpufw.errors import UsageError
from cpufw_x86.assist.backend import is_pvm
from cpufw_x86.assist.cpu_state import CR4_LA57
from cpufw_x86.assist.faults import Fault, Unassisted, invalid_opcode
from cpufw_x86.assist.hidden_state import HiddenState
from cpufw_x86.assist.physical import PhysicalMemory
from cpufw_x86.assist.syscall import DOOR_PAGE, LSTAR, SyscallTrampoline
from cpufw_x86.assist.table import execute
from cpufw_x86.assist.vcpu_state import VcpuState

if TYPE_CHECKING:
    from cpufw.kvm import InternalErrorExit, MmioExit
    from cpufw_x86.kvm import X86VCPU, X86VM
    from cpufw_x86.kvm.exits import MsrExit
    from cpufw_x86.memory import GuestRam

MODES = ("auto", "on", "off")
_RING_3 = 3


class Assist:
    """The emulation assist of one machine.

    `mode` is `on`, `off` or `auto`: on where the back end is PVM, which emulates ring 0 and hands
    back what its emulator lacks. Raises `UsageError` for others.
    """

    def __init__(self, mode: str = "auto") -> None:
        if mode not in MODES:
            raise UsageError(f"assist '{mode}' is not one of {', '.join(MODES)}")
        self.mode = mode
        self.active = False
        """Whether instructions are finished, known after `attach`."""
        self.refusal = ""
        """Why `finish` last said no; empty if it never did."""
        self._vcpus: dict[int, VcpuState] = {}
        self._memory: PhysicalMemory | None = None
        self._trampoline: SyscallTrampoline | None = None
        self._hidden: HiddenState | None = None
        self._syscalls: Counter[int] = Counter()

    def attach(self, vm: X86VM, ram: GuestRam) -> None:
        """Prepare `vm`, before its first vCPU is created. Raises `KvmError`."""
        pvm = self.mode != "off" and is_pvm(vm.kvm)
        self.active = pvm or self.mode == "on"
        if not self.active:
            return
        vm.enable_cap("KVM_CAP_EXIT_ON_EMULATION_FAILURE", 1)
        self._memory = PhysicalMemory(ram)
        self._memory.on_write = ram.wrote
        if pvm:
            self._trampoline = SyscallTrampoline(vm, self._memory)
            self._hidden = HiddenState()

    def finish(self, vcpu: X86VCPU, exit: InternalErrorExit) -> bool:
        """Finish the instruction that KVM could not. False: nobody knows how; nothing changed."""
        if not self.active or not exit.is_emulation_failure:
            return False
        state = self._vcpus.get(vcpu.id)
        if state is None:
            assert self._memory is not None
            state = self._vcpus[vcpu.id] = VcpuState(vcpu, self._memory, self._hidden)
        cpu = state.begin()
        try:
            instruction, assisted = state.instruction(exit.instruction)
            execute(cpu, instruction, assisted)
        except Unassisted as refusal:
            if cpu.cpl == _RING_3:  # a program must not end its machine: KVM too would say #UD
                state.raise_fault(invalid_opcode())
                state.counts["faults"] += 1
                return True
            self.refusal = f"cpufw cannot finish it either: {refusal}"
            return False
        except Fault as fault:
            state.raise_fault(fault)
            state.counts["faults"] += 1
        else:
            state.advance(instruction.length)
            state.counts[instruction.name] += 1
        return True

    def on_mmio(self, vcpu: X86VCPU, exit: MmioExit) -> bool:
        """Whether the access was a system call of ring 3, which then is on its way."""
        if self._trampoline is None or exit.address & -0x1000 != DOOR_PAGE:
            return False
        if exit.is_write and self._trampoline.enter(vcpu):
            self._syscalls[vcpu.id] += 1
        return True

    def on_msr(self, vcpu: X86VCPU, exit: MsrExit) -> bool:
        """Answer an access to LSTAR; False for other MSRs."""
        if self._trampoline is None or exit.index != LSTAR:
            return False
        if exit.is_write:
            width = 57 if vcpu.sync_regs.sregs.cr4 & CR4_LA57 else 48
            if exit.value >> width - 1 not in (0, (1 << 65 - width) - 1):
                return True  # not canonical: refused, which is #GP
            self._trampoline.write(vcpu, exit.value)
        else:
            exit.value = self._trampoline.read(vcpu)
        exit.refuse = False
        return True

    def reset(self) -> None:
        """Forget what the guest set up: the machine begins anew. No vCPU may run."""
        if self._trampoline is not None:
            self._trampoline.lstar.clear()
            self._trampoline.not_installed = ""
            self._hidden = HiddenState()
            for state in self._vcpus.values():
                state.cpu.hidden = self._hidden

    @property
    def kept_lstar(self) -> dict[int, int]:
        """The LSTAR that the guest set, by vCPU, where the vCPU itself has another."""
        return dict(self._trampoline.lstar) if self._trampoline is not None else {}

    def restore_lstar(self, vcpu: X86VCPU, value: int) -> None:
        """Give a vCPU that was saved with `kept_lstar` its LSTAR again."""
        if self._trampoline is not None:
            self._trampoline.lstar[vcpu.id] = value
        else:  # a back end that needs no help
            vcpu.set_msrs({LSTAR: value})

    def notes(self) -> list[str]:
        """What a user should know of this guest, in sentences; often nothing."""
        if self._trampoline is None or not self._trampoline.not_installed:
            return []
        return [
            "system calls from ring 3 do not reach the guest's kernel on this back end: "
            f"{self._trampoline.not_installed}"
        ]

    def report(self) -> Mapping[str, int]:
        """How often each instruction was finished, most often first; `syscall` for ring 3's."""
        total: Counter[str] = Counter()
        for state in list(self._vcpus.values()):
            total.update(state.counts)
        total.update({"syscall": self._syscalls.total()} if self._syscalls else {})
        return dict(total.most_common())
