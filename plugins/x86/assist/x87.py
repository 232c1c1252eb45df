"""The x87 unit: waiting, clearing, initializing, and loading an integer.

Linux executes these in ring 0; all else of x87 is left to the unicorn engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cpufw_x86.assist import table
from cpufw_x86.assist import vector_state as vs
from cpufw_x86.assist.cpu_state import RIP
from cpufw_x86.assist.table import Assisted

if TYPE_CHECKING:
    from cpufw_x86.assist.cpu_state import CpuState
    from cpufw_x86.assist.decode import Instruction

_INVALID_OPERATION, _STACK_FAULT, _C1 = 1 << 0, 1 << 6, 1 << 9
_INDEFINITE = (0xC000_0000_0000_0000, 0xFFFF)
_ERROR = 1 << 7 | 1 << 15  # ES and B
_EXPONENT_OF_ONE = 0x3FFF  # of an extended real: Intel SDM vol. 1, 4.2.2


def _fnclex(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    area = cpu.vectors.change(vs.X87)
    area[vs.FSW], area[vs.FSW + 1] = 0, area[vs.FSW + 1] & 0x7F


def _fninit(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    area = cpu.vectors.change(vs.X87)
    _set_top_to_zero(area)
    area[:24] = vs.FCW_INIT.to_bytes(2, "little") + bytes(22)  # FTW in its short form: 0 is empty


def _emms(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    area = cpu.vectors.change(vs.X87)
    _set_top_to_zero(area)
    area[vs.FTW] = 0


def _set_top_to_zero(area: bytearray) -> None:
    """TOP of the status word; the area has the registers in the order of the stack."""
    top = area[vs.FSW + 1] >> 3 & 7
    stack = [bytes(area[at : at + 16]) for at in range(vs.ST, vs.XMM, 16)]
    area[vs.ST : vs.XMM] = b"".join(stack[(register - top) & 7] for register in range(8))
    area[vs.FSW + 1] &= ~(7 << 3)


def _fwait(cpu: CpuState, instruction: Instruction) -> None:
    """Nothing: an x87 error that waits is raised by the next x87 instruction of the guest."""


def _fild(cpu: CpuState, instruction: Instruction) -> None:
    operand: Any = instruction.operands[0]
    value = int.from_bytes(operand.load(cpu, operand.size), "little", signed=True)
    size = abs(value).bit_length()
    mantissa = abs(value) << 64 - size if value else 0
    exponent = _EXPONENT_OF_ONE + size - 1 | (value < 0) << 15 if value else 0
    _push(cpu, mantissa, exponent)
    area = cpu.vectors.area
    area[vs.FIP : vs.FIP + 16] = cpu.g[RIP].to_bytes(8, "little") + bytes(8)


def _push(cpu: CpuState, mantissa: int, exponent: int) -> None:
    """Put an extended real upon the stack; a full stack gives what the control word asks for."""
    area = cpu.vectors.change(vs.X87)
    status = cpu.vectors.word(vs.FSW, 2)
    top = (status >> 11 & 7) - 1 & 7
    status = status & ~_C1
    if area[vs.FTW] >> top & 1:
        status |= _INVALID_OPERATION | _STACK_FAULT | _C1
        mantissa, exponent = _INDEFINITE
        if not area[vs.FCW] & _INVALID_OPERATION:
            area[vs.FSW : vs.FSW + 2] = (status | _ERROR).to_bytes(2, "little")
            return
    area[vs.FTW] |= 1 << top
    area[vs.FSW : vs.FSW + 2] = (status & ~(7 << 11) | top << 11).to_bytes(2, "little")
    element = mantissa.to_bytes(8, "little") + exponent.to_bytes(2, "little") + bytes(6)
    area[vs.ST : vs.XMM] = element + area[vs.ST : vs.XMM - 16]


TABLE = {
    "wait": Assisted(_fwait, (), table.check_wait),
    "fnclex": Assisted(_fnclex, ("1.EDX:0",), table.check_x87),
    "fninit": Assisted(_fninit, ("1.EDX:0",), table.check_x87),
    "emms": Assisted(_emms, ("1.EDX:23",), table.check_x87),
    "fild": Assisted(_fild, ("1.EDX:0",), table.check_x87),
}
