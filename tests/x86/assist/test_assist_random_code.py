"""Whatever bytes a guest executes, the assist finishes them, raises the CPU's fault, or says no."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import pytest
from guest_state import GuestState
from native_cpu import SCRATCH_AT, SCRATCH_SIZE

from cpufw_x86.assist.decode import decode
from cpufw_x86.assist.faults import Fault, Unassisted
from cpufw_x86.assist.instructions import TABLE, assisted
from cpufw_x86.assist.table import execute

MEMORY_AT = 0x10_0000
_OPCODES = (b"\x0f", b"\x0f\x38", b"\x0f\x3a", b"\x0f\xae", b"\x0f\xc7", b"\x0f\x01", b"\xdb", b"")
_PREFIXES = (b"", b"\x66", b"\xf2", b"\xf3", b"\xf0", b"\x48", b"\x66\x48", b"\xf3\x48", b"\x64")
_VEX = (b"\xc5\xf8", b"\xc5\xfd", b"\xc4\xe2\x79", b"\xc4\xe2\x7d", b"\xc4\xe3\x7d", b"\x62\xf1")


def _random_code(rng: random.Random) -> bytes:
    start = rng.choice(_VEX) if rng.random() < 0.3 else rng.choice(_PREFIXES) + rng.choice(_OPCODES)
    return (start + rng.randbytes(15))[:15]


@pytest.mark.parametrize("bits", [64, 32, 16])
def test_random_bytes(bits: int) -> None:
    rng = random.Random(bits)
    finished = 0
    for _ in range(2500):
        code = _random_code(rng)
        instruction = decode(code, bits)
        how = assisted(instruction) if instruction else None
        if instruction is None or how is None:
            continue
        registers = {f"r{n}": rng.getrandbits(64) for n in range(8, 16)}
        registers |= dict.fromkeys(("rax", "rcx", "rdx", "rbx", "rbp", "rdi"), 1)
        registers |= {"rsi": MEMORY_AT + SCRATCH_AT, "rsp": MEMORY_AT + SCRATCH_AT}
        state = GuestState(registers, 0, bytes(4096), bytes(SCRATCH_SIZE), MEMORY_AT, 0xE7)
        state.sregs.cs.l, state.sregs.cs.db = int(bits == 64), int(bits == 32)
        for name in ("ds", "es", "ss", "fs", "gs"):
            segment = getattr(state.sregs, name)
            segment.limit, segment.type = 0xFFFF_FFFF, 3
        state.cpu.begin()
        try:
            execute(state.cpu, instruction, how)
            finished += 1
        except (Fault, Unassisted):
            continue
    assert finished > 20


def test_every_instruction_of_the_table_has_a_feature_or_a_check_or_needs_none() -> None:
    needless = {name for name, entry in TABLE.items() if not entry.needs and entry.check is None}
    assert needless == {
        "int3", "int", "into", "ud0", "ud1", "ud2", "cldemote", "rdsspd", "rdsspq",
    }  # fmt: skip


@pytest.mark.parametrize("bits", [64, 32, 16])
@pytest.mark.parametrize("code", [b"\xcc", b"\x9b", b"\x0f\x01\xca", b"\x0f\x01\xcb"])
def test_what_is_decoded_without_capstone_is_as_capstone_has_it(code: bytes, bits: int) -> None:
    """A prefix without effect, the segment DS, has capstone decode it."""
    alone, prefixed = decode(code + bytes(8), bits), decode(b"\x3e" + code + bytes(8), bits)
    assert alone is not None
    assert prefixed is not None
    assert replace(prefixed, code=code) == alone


def test_the_commonest_instructions_do_not_need_capstone() -> None:
    program = (
        "import sys; from cpufw_x86.assist.instructions import found_at; "
        "print([found_at(code, 64)[0].name for code in (b'\\xcc', b'\\x9b\\x90')], "
        "'capstone' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "['int3', 'wait'] False\n"
