"""The operands of a decoded instruction: registers, memory, constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpufw_x86.assist.cpu_state import RIP

if TYPE_CHECKING:
    from cpufw_x86.assist.cpu_state import CpuState

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_NAMES_64 = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
_IN_STRUCT = {name: place for place, name in enumerate(
    ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp")
)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Register:
    """A general register, or a part of one: `size` bytes from bit `shift` of word `index`."""

    index: int
    shift: int
    size: int

    def read(self, cpu: CpuState) -> int:
        """Its value, unsigned."""
        value: int = cpu.g[self.index]
        return value >> self.shift & (1 << 8 * self.size) - 1

    def write(self, cpu: CpuState, value: int) -> None:
        """Set it; 32-bit writes clear the upper half, shorter ones leave the rest."""
        if self.size == 8:
            cpu.g[self.index] = value
        elif self.size == 4:
            cpu.g[self.index] = value & 0xFFFF_FFFF
        else:
            mask = (1 << 8 * self.size) - 1 << self.shift
            cpu.g[self.index] = cpu.g[self.index] & ~mask & _WORD | value << self.shift & mask


@dataclass(frozen=True, slots=True)
class Vector:
    """An XMM, YMM or ZMM register: `size` is 16, 32 or 64 bytes."""

    index: int
    size: int

    def read(self, cpu: CpuState) -> int:
        """Its value, as one number."""
        return cpu.vectors.read(self.index, self.size)


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory operand; `size` 0 where the instruction knows it by itself.

    `end` is the length of the instruction, for addresses relative to rip.
    """

    segment: str
    base: Register | None
    index: Register | None
    scale: int
    displacement: int
    relative: bool
    address_size: int
    size: int
    end: int

    def offset(self, cpu: CpuState) -> int:
        """The effective address."""
        value = self.displacement
        if self.base is not None:
            value += self.base.read(cpu)
        if self.index is not None:
            value += self.index.read(cpu) * self.scale
        if self.relative:
            value += cpu.g[RIP] + self.end
        return value & (1 << 8 * self.address_size) - 1

    def linear(self, cpu: CpuState, size: int, *, write: bool = False) -> int:
        """The linear address of `size` bytes there; raises #GP or #SS."""
        return cpu.linear(self.segment, self.offset(cpu), size, write)

    def read(self, cpu: CpuState) -> int:
        """The value there."""
        return int.from_bytes(self.load(cpu, self.size), "little")

    def write(self, cpu: CpuState, value: int) -> None:
        """Set the value there."""
        self.store(cpu, value.to_bytes(self.size, "little"))

    def load(self, cpu: CpuState, size: int) -> bytes:
        """`size` bytes from there."""
        return cpu.read(self.linear(cpu, size), size)

    def store(self, cpu: CpuState, data: bytes) -> None:
        """Write `data` there."""
        cpu.write(self.linear(cpu, len(data), write=True), data)


@dataclass(frozen=True, slots=True)
class Immediate:
    """A constant, as capstone extends it."""

    value: int
    size: int

    def read(self, cpu: CpuState) -> int:  # noqa: ARG002 - as of the other operands
        """Its value."""
        return self.value & (1 << 8 * self.size) - 1


@dataclass(frozen=True, slots=True)
class OtherRegister:
    """A register that no assisted instruction reads or writes by its operand, by name."""

    name: str
    size: int


Operand = Register | Vector | Memory | Immediate | OtherRegister


def _general_registers() -> dict[str, Register]:
    found: dict[str, Register] = {}
    for name in _NAMES_64:
        index, short = _IN_STRUCT[name], name[1:]
        found[name] = Register(index, 0, 8)
        found[f"e{short}"] = Register(index, 0, 4)
        found[short] = Register(index, 0, 2)
        low = f"{short[0]}l" if short.endswith("x") else f"{short}l"
        found[low] = Register(index, 0, 1)
        if short.endswith("x"):
            found[f"{short[0]}h"] = Register(index, 8, 1)
    for number in range(8, 16):
        for suffix, size in (("", 8), ("d", 4), ("w", 2), ("b", 1)):
            found[f"r{number}{suffix}"] = Register(number, 0, size)
    return found


GENERAL_REGISTERS = _general_registers()
"""By their names in assembly language: `rax`, `r8d`, `ah`."""

VECTOR_REGISTERS = {
    f"{letter}mm{number}": Vector(number, size)
    for letter, size in (("x", 16), ("y", 32), ("z", 64))
    for number in range(32)
}
