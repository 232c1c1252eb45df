"""Instruction bytes to mnemonic and operands, by capstone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cpufw_x86.assist.operands import (
    GENERAL_REGISTERS,
    VECTOR_REGISTERS,
    Immediate,
    Memory,
    Operand,
    OtherRegister,
    Register,
)

LONGEST = 15
"""Bytes of the longest instruction (Intel SDM vol. 2A, 2.3.11)."""

_LOCK = 0xF0
_LEGACY_PREFIXES = b"\x66\xf2\xf3\xf0\x2e\x36\x3e\x26\x64\x65\x67"
_EVEX = b"\x62"
_WITHOUT_OPERANDS = {
    # What capstone does not know
    b"\x0f\x01\xfd": ("rdpru", ()),
    b"\x0f\x01\xe8": ("serialize", ()),
    # What almost every guest executes: most of them need no capstone, which is slow to import
    b"\xcc": ("int3", ("int",)),
    b"\x9b": ("wait", ("fpu",)),
    b"\x0f\x01\xca": ("clac", ("privilege",)),
    b"\x0f\x01\xcb": ("stac", ("privilege",)),
}
"""Instructions that are always the same bytes: names and groups, as capstone has them."""
_STACK_BASES = frozenset({"rsp", "rbp", "esp", "ebp", "bp"})


@dataclass(frozen=True, slots=True)
class Instruction:
    """A decoded instruction: `name` is its mnemonic without prefixes, as capstone writes it."""

    name: str
    code: bytes
    operands: tuple[Operand, ...]
    locked: bool
    operand_size: int
    """Bytes: 2, 4 or 8 by mode and prefixes."""
    address_size: int
    """The same of addresses."""
    groups: tuple[str, ...]
    """What capstone counts it among: `sse2`, `fpu`."""

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self.code)

    @property
    def is_evex(self) -> bool:
        """Whether it is coded with the EVEX prefix, as AVX-512 is."""
        after_prefixes = self.code.lstrip(_LEGACY_PREFIXES)
        return after_prefixes.startswith(_EVEX) and self.name != "bound"


def decode(code: bytes, bits: int) -> Instruction | None:
    """The first instruction of `code` in a code segment of `bits` (16, 32, 64), None if none is."""
    for pattern, (name, groups) in _WITHOUT_OPERANDS.items():
        if code.startswith(pattern):
            operand_size, address_size = 2 if bits == 16 else 4, bits // 8
            return Instruction(name, pattern, (), False, operand_size, address_size, groups)
    import capstone

    found: Any = next(_engine(bits).disasm(code[:LONGEST], 0, 1), None)
    if found is None:
        return None
    names = found.mnemonic.split()
    operands = tuple(_operand(capstone.x86, found, operand) for operand in found.operands)
    rex_w = found.rex & 0b1000 if bits == 64 else 0
    short = 0x66 in found.prefix
    size = 8 if rex_w else (2 if short == (bits != 16) else 4)
    groups = tuple(found.group_name(group) for group in found.groups)
    locked = _LOCK in found.prefix
    return Instruction(
        names[-1], bytes(found.bytes), operands, locked, size, found.addr_size, groups
    )


@lru_cache(maxsize=3)
def _engine(bits: int) -> Any:
    import capstone

    mode = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}[bits]
    engine = capstone.Cs(capstone.CS_ARCH_X86, mode)
    engine.detail = True
    return engine


def _operand(x86: Any, instruction: Any, operand: Any) -> Operand:
    if operand.type == x86.X86_OP_IMM:
        return Immediate(operand.imm, operand.size)
    if operand.type == x86.X86_OP_MEM:
        return _memory(instruction, operand)
    name = instruction.reg_name(operand.reg)
    known = GENERAL_REGISTERS.get(name) or VECTOR_REGISTERS.get(name)
    return known or OtherRegister(name, operand.size)


def _memory(instruction: Any, operand: Any) -> Memory:
    def name(register: int) -> str:
        return instruction.reg_name(register) if register else ""

    place = operand.mem
    base, index, segment = name(place.base), name(place.index), name(place.segment)
    return Memory(
        segment=segment or ("ss" if base in _STACK_BASES else "ds"),
        base=GENERAL_REGISTERS.get(base),
        index=_register(index),
        scale=place.scale,
        displacement=place.disp,
        relative=base in ("rip", "eip"),
        address_size=instruction.addr_size,
        size=operand.size,
        end=instruction.size,
    )


def _register(name: str) -> Register | None:
    return GENERAL_REGISTERS.get(name)  # riz and eiz: no index
