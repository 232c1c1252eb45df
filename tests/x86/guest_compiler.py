"""Compiles the guests of the folder `facilities`; needs gcc and nothing of cpufw.

Run as a program it leaves them in `facilities/built`, for machines without a compiler.
"""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import serial_guests

FOLDER = Path(__file__).resolve().parent / "facilities"
LIBRARY, REAL, MULTIBOOT = FOLDER / "lib", FOLDER / "real", FOLDER / "multiboot"
BUILT = FOLDER / "built"
"""Where guests are found on a machine without a compiler."""

_COMPILE = (
    *("gcc", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-O2", "-ffreestanding", "-nostdlib"),
    # Exactly the instructions written: no SSE, and no tables that need a loader.
    *("-mgeneral-regs-only", "-mno-red-zone", "-fcf-protection=none", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fno-tree-loop-distribute-patterns"),
    "-fno-toplevel-reorder",  # checks run in the order in which they stand
    *("-static", "-no-pie", "-fno-pic", "-Wl,--build-id=none", "-Wl,-z,noexecstack"),
    *("-Wl,-z,max-page-size=4096", "-Wl,--no-warn-rwx-segments"),
)
_FLAT = ("-m16", "-march=i386", "-Wl,-m,elf_i386", "-Wl,--oformat=binary", "-Wl,-e,0x7c00")
_32_BIT = ("-m32", "-march=i686", "-Wl,-m,elf_i386")
_ARGUMENTS, _MOST_ARGUMENTS = b"GUEST-ARGUMENTS ", 480  # lib/guest.c
_CHECK = re.compile(r"^CHECK\((\w+)\)", re.MULTILINE)


def _sources() -> dict[str, Path]:
    folders = (FOLDER, REAL, MULTIBOOT)
    return {path.stem: path for folder in folders for path in folder.glob("*.c")}


def guests() -> list[str]:
    """The names of all guests."""
    return sorted(_sources())


def checks_of(guest: str) -> list[str]:
    """The names of a guest's checks, in the order in which they run."""
    return _CHECK.findall(_sources()[guest].read_text())


def build(guest: str, target: Path) -> None:
    """Compile `guest` into `target`: ELF for long mode or Multiboot, flat for real mode."""
    source = _sources()[guest]
    if source.parent == REAL:
        rest = [*_FLAT, "-T", REAL / "guest16.ld", source]
    elif source.parent == MULTIBOOT:
        rest = [*_32_BIT, "-T", MULTIBOOT / "guest32.ld", source]
    else:
        library = [LIBRARY / "start64.S", *sorted(LIBRARY.glob("*.c"))]
        rest = ["-m64", "-I", LIBRARY, "-T", LIBRARY / "guest.ld", *library, source]
    command = [*_COMPILE, "-o", target, *rest]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def build_all() -> None:
    """Compile all guests to where they are found without a compiler."""
    BUILT.mkdir(exist_ok=True)
    for guest in guests():
        build(guest, BUILT / guest)
    serial_guests.build_all(BUILT)


@cache
def _folder() -> Path:
    return Path(mkdtemp(prefix="cpufw-guests-"))


@cache
def image_of(guest: str, arguments: str = "") -> Path:
    """The guest's file, built once; with `arguments`, words that the guest looks for."""
    plain = BUILT / guest
    if not plain.exists():
        plain = _folder() / guest
        if not plain.exists():
            build(guest, plain)
    if not arguments:
        return plain
    content = plain.read_bytes()
    at = content.index(_ARGUMENTS) + len(_ARGUMENTS)
    words = f"{arguments} ".encode()
    assert len(words) < _MOST_ARGUMENTS, arguments
    target = _folder() / f"{guest}-{len(list(_folder().iterdir()))}"
    target.write_bytes(content[:at] + words + content[at + len(words) :])
    return target


if __name__ == "__main__":
    build_all()
