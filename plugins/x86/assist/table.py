"""How an instruction says what it needs and what finishes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cpufw_x86.assist.cpu_state import (
    CR0_EM,
    CR0_MP,
    CR0_TS,
    CR4_OSFXSR,
    CR4_OSXSAVE,
    RFLAGS,
    VM,
)
from cpufw_x86.assist.faults import DEVICE_NOT_AVAILABLE, Fault, invalid_opcode

if TYPE_CHECKING:
    from cpufw_x86.assist.cpu_state import CpuState
    from cpufw_x86.assist.decode import Instruction

Run = Callable[["CpuState", "Instruction"], None]
Check = Callable[["CpuState"], None]


class Assisted(NamedTuple):
    """One instruction: `run` finishes it, but for rip.

    Without one of the features `needs` (CPUID places like `1.ECX:23`) the guest gets #UD; then
    `check` may raise what the control registers ask for.
    """

    run: Run
    needs: tuple[str, ...] = ()
    check: Check | None = None
    lockable: bool = False


def execute(cpu: CpuState, instruction: Instruction, assisted: Assisted) -> None:
    """Check what the CPU checks, then finish `instruction`, but for rip.

    Raises `Fault`, or `Unassisted` with nothing changed.
    """
    for place in assisted.needs:
        need(cpu, place)
    if instruction.locked and not assisted.lockable:
        raise invalid_opcode()
    if assisted.check is not None:
        assisted.check(cpu)
    assisted.run(cpu, instruction)


def need(cpu: CpuState, place: str) -> None:
    """#UD without this feature."""
    if not cpu.has(place):
        raise invalid_opcode()


def check_x87(cpu: CpuState) -> None:
    """Of x87 instructions: #NM (Intel SDM vol. 3A, 2.5, CR0.EM and CR0.TS)."""
    if cpu.sregs.cr0 & (CR0_EM | CR0_TS):
        raise Fault(DEVICE_NOT_AVAILABLE)


def check_wait(cpu: CpuState) -> None:
    """Of FWAIT: #NM with CR0.TS and CR0.MP."""
    cr0 = cpu.sregs.cr0
    if cr0 & CR0_MP and cr0 & CR0_TS:
        raise Fault(DEVICE_NOT_AVAILABLE)


def check_sse(cpu: CpuState) -> None:
    """Of SSE instructions (Intel SDM vol. 3A, 14.1: CR0.EM, CR4.OSFXSR, CR0.TS)."""
    if cpu.sregs.cr0 & CR0_EM or not cpu.sregs.cr4 & CR4_OSFXSR:
        raise invalid_opcode()
    check_task_switched(cpu)


def check_avx(cpu: CpuState) -> None:
    """Of VEX-coded vector instructions: the guest has turned them on (Intel SDM vol. 1, 14.3)."""
    avx = 0b110
    if not cpu.sregs.cr4 & CR4_OSXSAVE or cpu.platform.get_xcr0() & avx != avx:
        raise invalid_opcode()
    if not cpu.sregs.cr0 & 1 or cpu.g[RFLAGS] & VM:
        raise invalid_opcode()
    check_task_switched(cpu)


def check_xsave(cpu: CpuState) -> None:
    """Of the XSAVE family: CR4.OSXSAVE and CR0.TS."""
    if not cpu.sregs.cr4 & CR4_OSXSAVE:
        raise invalid_opcode()
    check_task_switched(cpu)


def check_osxsave(cpu: CpuState) -> None:
    """Of XGETBV and XSETBV."""
    if not cpu.sregs.cr4 & CR4_OSXSAVE:
        raise invalid_opcode()


def check_task_switched(cpu: CpuState) -> None:
    """#NM with CR0.TS."""
    if cpu.sregs.cr0 & CR0_TS:
        raise Fault(DEVICE_NOT_AVAILABLE)


def check_protected(cpu: CpuState) -> None:
    """Of instructions that real and virtual-8086 mode do not have."""
    if not cpu.sregs.cr0 & 1 or cpu.g[RFLAGS] & VM:
        raise invalid_opcode()


def check_supervisor(cpu: CpuState) -> None:
    """Of privileged instructions: #GP(0)."""
    if cpu.cpl:
        raise Fault(13, 0)
