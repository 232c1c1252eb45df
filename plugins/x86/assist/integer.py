"""Counting, swapping and exchanging: instructions over general registers and memory."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from cpufw_x86.assist.cpu_state import ARITHMETIC_FLAGS, CF, RAX, RBX, RCX, RDX, RFLAGS, ZF
from cpufw_x86.assist.faults import general_protection
from cpufw_x86.assist.table import Assisted

if TYPE_CHECKING:
    from cpufw_x86.assist.cpu_state import CpuState
    from cpufw_x86.assist.decode import Instruction

_PAIR = Struct("<QQ")


def _popcnt(cpu: CpuState, instruction: Instruction) -> None:
    to, source = _two(instruction)
    value: int = source.read(cpu)
    to.write(cpu, value.bit_count())
    cpu.set_flags(ARITHMETIC_FLAGS, 0 if value else ZF)


def _lzcnt(cpu: CpuState, instruction: Instruction) -> None:
    to, source = _two(instruction)
    value: int = source.read(cpu)
    _counted(cpu, to, 8 * to.size - value.bit_length(), not value)


def _tzcnt(cpu: CpuState, instruction: Instruction) -> None:
    to, source = _two(instruction)
    value: int = source.read(cpu)
    count = (value & -value).bit_length() - 1 if value else 8 * to.size
    _counted(cpu, to, count, not value)


def _counted(cpu: CpuState, to: Any, count: int, was_zero: bool) -> None:
    to.write(cpu, count)
    # The other flags are undefined; processors leave them.
    cpu.set_flags(CF | ZF, (CF if was_zero else 0) | (ZF if count == 0 else 0))


def _movbe(cpu: CpuState, instruction: Instruction) -> None:
    to, source = _two(instruction)
    size = to.size
    to.write(cpu, int.from_bytes(source.read(cpu).to_bytes(size, "little"), "big"))


def _cmpxchg16b(cpu: CpuState, instruction: Instruction) -> None:
    place: Any = instruction.operands[0]
    linear = place.linear(cpu, 16, write=True)
    if linear % 16:
        raise general_protection()
    g = cpu.g
    expected, desired = _PAIR.pack(g[RAX], g[RDX]), _PAIR.pack(g[RBX], g[RCX])
    # Without a lock prefix only this CPU's own accesses need to be in order: atomic is as good.
    found = cpu.update(linear, 16, lambda old: desired if old == expected else None)
    if found == expected:
        g[RFLAGS] |= ZF
    else:
        g[RAX], g[RDX] = _PAIR.unpack(found)
        g[RFLAGS] &= ~ZF


def _two(instruction: Instruction) -> tuple[Any, Any]:
    to, source = instruction.operands
    return to, source


TABLE = {
    "popcnt": Assisted(_popcnt, ("1.ECX:23",)),
    "lzcnt": Assisted(_lzcnt, ("80000001.ECX:5",)),
    "tzcnt": Assisted(_tzcnt, ("7.0.EBX:3",)),
    "movbe": Assisted(_movbe, ("1.ECX:22",)),
    "cmpxchg16b": Assisted(_cmpxchg16b, ("1.ECX:13",), lockable=True),
}
