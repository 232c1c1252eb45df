"""Guests for the tests, made without an assembler, and the command that runs them.

What `Program` emits means the same in 16, 32 and 64-bit code unless a method says otherwise.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

COM1, EXIT_PORT, POWER_PORT, RESET_PORT = 0x3F8, 0xF4, 0x604, 0xCF9
SLEEP_ENABLE = 1 << 13  # S5 is sleep type 0 on this machine
NO_RAM_HERE = 0xD000_0000

SPIN = b"\xeb\xfe"

# What "at once" may take, in seconds. A host that is itself emulated is not slow all of the time,
# but now and then by seconds.
AT_ONCE = 20.0 if "QEMU TCG CPU" in Path("/proc/cpuinfo").read_text() else 1.0

# Adds up to 6 in 16-bit, 7 in 32-bit and 3 in 64-bit code: 48 is dec or REX.W, 66 makes an
# operand of mov two or four bytes long.
MODE_NUMBER = bytes.fromhex("31c0 48 90 66b90200b103 2404 00c8")

EM_386, EM_X86_64 = 3, 62


class Program:
    """Code for a flat image or an ELF segment, built up call by call."""

    def __init__(self) -> None:
        self.code = b""

    def raw(self, code: bytes) -> Program:
        self.code += code
        return self

    def say(self, text: str) -> Program:
        """Print to COM1; the UART needs no set-up."""
        self.raw(b"\x66\xba" + struct.pack("<H", COM1) + b"\x90\x90")  # mov dx, or edx in 16 bit
        for byte in text.encode():
            self.raw(bytes([0xB0, byte, 0xEE]))
        return self

    def exit(self, value: int) -> Program:
        return self.raw(bytes([0xB0, value, 0xE6, EXIT_PORT])).halt()

    def exit_with_al(self) -> Program:
        return self.raw(bytes([0xE6, EXIT_PORT])).halt()

    def halt(self) -> Program:
        return self.raw(b"\xf4\xeb\xfd")

    # 32 and 64-bit code only

    def outb(self, port: int, value: int) -> Program:
        return self.raw(b"\xba" + struct.pack("<I", port) + bytes([0xB0, value, 0xEE]))

    def outw(self, port: int, value: int) -> Program:
        return self.raw(struct.pack("<BIHHH", 0xBA, port, 0xB866, value, 0xEF66))

    def outl(self, port: int, value: int) -> Program:
        return self.raw(struct.pack("<BIBIB", 0xBA, port, 0xB8, value, 0xEF))

    def wait_for(self, port: int, bits: int) -> Program:
        """Read the port until one of the bits is set."""
        return self.raw(b"\xba" + struct.pack("<I", port) + bytes([0xEC, 0xA8, bits, 0x74, 0xFB]))

    def triple_fault(self) -> Program:
        """An undefined instruction with no interrupt table."""
        # 32-bit: mov eax, 0x400; lidt [eax], where memory is zero; then ud2
        return self.raw(bytes.fromhex("b800040000 0f0118 b978563412 0f0b"))

    def jump(self, address: int) -> Program:
        return self.raw(b"\xb8" + struct.pack("<I", address) + b"\xff\xe0")

    def write(self, path: Path) -> Path:
        path.write_bytes(self.code)
        return path


def elf(
    code: bytes,
    *,
    wide: bool,
    address: int = 0x20_0000,
    virtual: int | None = None,
    entry: int | None = None,
    machine: int | None = None,
    kind: int = 2,
    zeros: int = 0,
) -> bytes:
    """An ELF executable of one segment: `code` for `address`, followed by zeros."""
    virtual = address if virtual is None else virtual
    entry = virtual if entry is None else entry
    machine = machine or (EM_X86_64 if wide else EM_386)
    header = 64 + 56 if wide else 52 + 32
    size = len(code)
    magic = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    if wide:
        head = struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        row = struct.pack("<IIQQQQQQ", 1, 7, header, virtual, address, size, size + zeros, 1)
    else:
        head = struct.pack("<HHIIIIIHHHHHH", kind, machine, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        row = struct.pack("<IIIIIIII", 1, header, virtual, address, size, size + zeros, 7, 1)
    return magic + head + row + code


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "cpufw", *map(str, arguments)]


def cpufw(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `cpufw`; output is captured as text."""
    options.setdefault("capture_output", True)
    return subprocess.run(
        command(*arguments), text=True, timeout=100, env=environment(), check=False, **options
    )


def environment(**changes: str) -> dict[str, str]:
    """As in a user's shell: output is buffered, a table is as wide as it likes."""
    unwanted = ("PYTHONUNBUFFERED", "COLUMNS", "NO_COLOR")
    return {k: v for k, v in os.environ.items() if k not in unwanted} | changes


def demo(*arguments: str) -> dict[str, Any]:
    """What `cpufw demo --format json` prints."""
    done = cpufw("demo", "--format", "json", *arguments)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result
