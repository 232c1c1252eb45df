"""The CPU that the tests run on, as an oracle: one instruction on given registers and memory.

A page of machine code loads the registers, runs the instruction and stores what became of them.
Only instructions that ring 3 may run, that do not fault, jump, or touch the stack pointer.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import capstone
import pytest

_MAP_32BIT = 0x40  # so that addresses fit a guest without paging
_EIGHT = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp")  # as in struct kvm_regs
_NEW = tuple(f"r{n}" for n in range(8, 16))
_REGISTERS = (*_EIGHT, *_NEW)
_BY_NUMBER = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *_NEW)
_NUMBERS = {name: number for number, name in enumerate(_BY_NUMBER)}
_FLAGS = 16
_IN, _OUT, _XSAVE_IN, _XSAVE_OUT = 0, 0x100, 0x1000, 0x4000
_STATE_SIZE = 0x7000
SCRATCH_SIZE = 0x3000
SCRATCH_AT = 0x1000
"""Where in the scratch memory the tests let operands lie: pages before and after it exist too."""

LOADED_FLAGS = 0x8D5
"""CF, PF, AF, ZF, SF and OF: what a test loads and compares."""


class Outcome(NamedTuple):
    """What an instruction left: general registers by name, flags, XSAVE area, scratch memory."""

    registers: dict[str, int]
    flags: int
    xsave: bytes
    scratch: bytes


def _allocate(size: int, executable: bool = False) -> tuple[mmap.mmap, int]:
    prot = mmap.PROT_READ | mmap.PROT_WRITE | (mmap.PROT_EXEC if executable else 0)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT
    block = mmap.mmap(-1, size, flags=flags, prot=prot)
    return block, ctypes.addressof(ctypes.c_char.from_buffer(block))


class NativeCpu:
    """Runs instructions; `scratch_address` is memory that both it and the guest's state know."""

    def __init__(self) -> None:
        self._code, self._code_address = _allocate(0x1000, executable=True)
        self._state, self._state_address = _allocate(_STATE_SIZE)
        self._scratch, self.scratch_address = _allocate(SCRATCH_SIZE)
        self.xcr0 = self._read_xcr0()

    def run(
        self,
        code: bytes,
        registers: Mapping[str, int],
        flags: int,
        xsave: bytes,
        scratch: bytes,
    ) -> Outcome:
        """Run the one instruction `code`."""
        state = self._state
        for name, value in registers.items():
            struct.pack_into("<Q", state, 8 * _REGISTERS.index(name), value)
        struct.pack_into("<Q", state, _IN + 8 * _FLAGS, flags & LOADED_FLAGS | 2)
        state[_XSAVE_IN : _XSAVE_IN + len(xsave)] = xsave
        state[_XSAVE_OUT : _XSAVE_OUT + 0x3000] = bytes(0x3000)
        self._scratch[:] = scratch
        self._call(self._around(code))
        values = struct.unpack_from("<17Q", state, _OUT)
        left = dict(zip(_REGISTERS, values, strict=False))
        del left["rsp"]
        area = bytes(state[_XSAVE_OUT : _XSAVE_OUT + len(xsave)])
        return Outcome(left, values[_FLAGS] & LOADED_FLAGS, area, bytes(self._scratch))

    def _call(self, code: bytes) -> None:
        self._code[: len(code)] = code
        ctypes.CFUNCTYPE(None)(self._code_address)()

    def _around(self, code: bytes) -> bytes:
        saved = ("rbx", "rbp", "r12", "r13", "r14", "r15")
        out = b"".join(_push(name) for name in saved)
        out += _load_address("rbx", self._state_address)
        # xrstor64 [rbx + _XSAVE_IN] with every component
        out += b"\xb8\xff\xff\xff\xff\xba\xff\xff\xff\xff"
        out += b"\x48\x0f\xae\xab" + struct.pack("<I", _XSAVE_IN)
        out += b"\xff\xb3" + struct.pack("<I", _IN + 8 * _FLAGS) + b"\x9d"  # push [..]; popfq
        for name in _REGISTERS:
            if name not in ("rsp", "rbx"):
                out += _move("rbx", name, 8 * _REGISTERS.index(name), load=True)
        out += _move("rbx", "rbx", 8 * _REGISTERS.index("rbx"), load=True)
        out += code
        out += b"\x50" + _load_address("rax", self._state_address)  # push rax
        for name in _REGISTERS:
            if name not in ("rsp", "rax"):
                out += _move("rax", name, _OUT + 8 * _REGISTERS.index(name), load=False)
        out += b"\x8f\x80" + struct.pack("<I", _OUT)  # pop [..], what was pushed
        out += b"\x9c\x8f\x80" + struct.pack("<I", _OUT + 8 * _FLAGS)  # pushfq; pop [..]
        out += b"\x48\x89\xc3" + b"\xb8\xff\xff\xff\xff\xba\xff\xff\xff\xff"
        out += b"\x48\x0f\xae\xa3" + struct.pack("<I", _XSAVE_OUT)
        # The C library expects its own control words.
        out += b"\xdb\xe3\x68\x80\x1f\x00\x00\x0f\xae\x14\x24\x58"  # push; ldmxcsr [rsp]; pop rax
        out += b"\xc5\xf8\x77" if self._has_avx else b""  # vzeroupper
        out += b"".join(_pop(name) for name in reversed(saved))
        return out + b"\xc3"

    @property
    def _has_avx(self) -> bool:
        return bool(getattr(self, "xcr0", 0) & 4)

    def _read_xcr0(self) -> int:
        # xor ecx, ecx; xgetbv; shl rdx, 32; or rax, rdx; mov [state], rax
        code = b"\x31\xc9\x0f\x01\xd0\x48\xc1\xe2\x20\x48\x09\xd0\x48\xa3"
        self._call(code + struct.pack("<Q", self._state_address) + b"\xc3")
        value: int = struct.unpack_from("<Q", self._state)[0]
        return value


def _push(name: str) -> bytes:
    number = _NUMBERS[name]
    return (b"\x41" if number > 7 else b"") + bytes([0x50 + number % 8])


def _pop(name: str) -> bytes:
    number = _NUMBERS[name]
    return (b"\x41" if number > 7 else b"") + bytes([0x58 + number % 8])


def _load_address(name: str, address: int) -> bytes:
    return bytes([0x48, 0xB8 + _NUMBERS[name]]) + struct.pack("<Q", address)


def _move(base: str, register: str, offset: int, *, load: bool) -> bytes:
    number = _NUMBERS[register]
    modrm = 0x80 | number % 8 << 3 | _NUMBERS[base]
    return bytes([0x48 | (number > 7) << 2, 0x8B if load else 0x89, modrm]) + struct.pack(
        "<I", offset
    )


@lru_cache(maxsize=1)
def native_cpu() -> NativeCpu:
    """The CPU, set up once."""
    return NativeCpu()


def host_flags() -> set[str]:
    """The features that /proc/cpuinfo names."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return set(line.split())
    return set()


def assemble(lines: Sequence[str], folder: Path) -> dict[str, bytes]:
    """Each line of assembly (Intel syntax) as machine code; skips the test without binutils."""
    if not shutil.which("as") or not shutil.which("objcopy"):
        pytest.skip("binutils (as, objcopy) is not installed")
    source, objects, binary = folder / "code.s", folder / "code.o", folder / "code.bin"
    slot = 32
    text = "".join(f".balign {slot}, 0xcc\n{line}\n" for line in lines)
    source.write_text(f".intel_syntax noprefix\n.code64\n{text}", encoding="ascii")
    subprocess.run(["as", "--64", "-o", objects, source], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", objects, binary], check=True)
    code = binary.read_bytes()
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    found = {}
    for number, line in enumerate(lines):
        piece = code[number * slot : number * slot + slot]
        found[line] = piece[: next(engine.disasm(piece, 0, 1)).size]
    return found


def random_registers(rng: random.Random, scratch_address: int) -> dict[str, int]:
    """Random values, many of them remarkable; rsi points into the scratch memory."""
    special = (0, 1, 0xFFFF_FFFF, 0x8000_0000, 1 << 63, (1 << 64) - 1, 0x8000, 0x80)
    registers = {
        name: rng.choice(special) if rng.random() < 0.3 else rng.getrandbits(64)
        for name in _REGISTERS
        if name != "rsp"
    }
    registers["rsi"] = scratch_address + SCRATCH_AT
    return registers
