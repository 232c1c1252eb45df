"""Which function finishes which instruction."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from cpufw_x86.assist import bit_fields, integer, system, vector_logic, vector_moves, x87, xsave
from cpufw_x86.assist.decode import Instruction, decode
from cpufw_x86.assist.operands import OtherRegister
from cpufw_x86.assist.unicorn_engine import assisted_by_unicorn

if TYPE_CHECKING:
    from cpufw_x86.assist.table import Assisted

TABLE: Mapping[str, Assisted] = {
    **integer.TABLE,
    **bit_fields.TABLE,
    **system.TABLE,
    **x87.TABLE,
    **xsave.TABLE,
    **vector_moves.TABLE,
    **vector_logic.TABLE,
}
"""Every instruction that is finished without the unicorn engine, by its mnemonic."""


def assisted(instruction: Instruction) -> Assisted | None:
    """How `instruction` is finished, None if nobody knows."""
    if instruction.is_evex:  # AVX-512: masks, broadcasts and roundings of its own
        return None
    # MMX, x87 and mask registers: the functions here know general and vector registers.
    if any(isinstance(operand, OtherRegister) for operand in instruction.operands):
        return assisted_by_unicorn(instruction)
    return TABLE.get(instruction.name) or assisted_by_unicorn(instruction)


@lru_cache(maxsize=8192)
def found_at(code: bytes, bits: int) -> tuple[Instruction, Assisted] | str:
    """The instruction that `code` begins with and how it is finished; else why it is not.

    Worked out once for each byte string: capstone takes longer than all the rest.
    """
    instruction = decode(code, bits)
    if instruction is None:
        return ""
    how = assisted(instruction)
    return (instruction, how) if how is not None else f"there is nothing for {instruction.name}"
