"""Assembles the guests of serial_guest.S; needs GNU as and ld, or what `build_all` left behind."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

SOURCE = Path(__file__).with_name("serial_guest.S")

POLLS, SLOW, INTERRUPTS, SENDS, SENDS_BLINDLY = range(5)
PORTS = (0x3F8, 0x2F8, 0x3E8, 0x2E8)
_ALL = (POLLS, SLOW, INTERRUPTS, SENDS, SENDS_BLINDLY, *(-port for port in PORTS))
END = b"\x04"
"""What ends the guests that echo."""


def build(number: int, target: Path) -> None:
    """Guest `number`; the negative number of a port is the guest that prints there."""
    unlinked = target.with_suffix(".o")
    assemble = ["as", "--32", "--defsym", f"GUEST={number}", "-o", unlinked, SOURCE]
    subprocess.run(assemble, check=True)
    link = ["ld", "-m", "elf_i386", "-Ttext=0x7c00", "--oformat=binary"]
    subprocess.run([*link, "-o", target, unlinked], check=True)
    unlinked.unlink()


def build_all(folder: Path) -> None:
    """All of them into `folder`."""
    for number in _ALL:
        build(number, folder / f"serial{number}")


@cache
def serial_guest(number: int) -> Path:
    """The guest's file: the one in facilities/built if it is there, else built now, once."""
    built = SOURCE.parent / "facilities" / "built" / f"serial{number}"
    if built.exists():
        return built
    made = Path(mkdtemp(prefix="cpufw-serial-")) / "guest"
    build(number, made)
    return made
