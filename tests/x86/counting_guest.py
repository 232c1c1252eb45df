"""A guest that counts, on its serial port and in memory, so that a gap or a repetition shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cpufw.core.machine import Machine
from cpufw.framework import Framework

_MEMORY, _PAGE = 0x20_0000, 0x1000


def code(pages: int) -> bytes:
    """32-bit code for 0x100000, which counts in so many pages of memory too.

    Memory that is not as it was left ends the counting.
    """
    end = (_MEMORY + pages * _PAGE).to_bytes(4, "little").hex()
    return bytes.fromhex(
        "31db"  # xor ebx, ebx: the number
        "be00002000"  # next: mov esi, 0x200000
        "391e 7522"  # page: cmp [esi], ebx; jne bad
        "ff06"  # inc dword [esi]
        "81c600100000"  # add esi, 4096
        f"81fe{end}"  # cmp esi, end
        "72ec"  # jb page
        "66baf803 89d8"  # mov dx, 0x3f8; mov eax, ebx
        "ee c1e808 ee c1e808 ee"  # out dx, al; shr eax, 8; and again, and again: lowest first
        "43"  # inc ebx
        "ebd5"  # jmp next
        "66baf803 b0ff ee ee ee f4"  # bad: mov dx, 0x3f8; mov al, 255; out three times; hlt
    )


_DIGITS = 3


def write_image(folder: Path, pages: int = 64) -> Path:
    """The guest as a flat image."""
    path = folder / "count.bin"
    path.write_bytes(code(pages))
    return path


@contextmanager
def counting(
    framework: Framework, folder: Path, *, pages: int = 64, **options: Any
) -> Iterator[tuple[Machine, bytearray]]:
    """A machine that counts, started, and what it has sent."""
    out = bytearray()
    settings = {"cpu": "qemu64", "memory": "16M", **options}
    image = write_image(folder, pages)
    with framework.machine(
        "pc", kernel=image, entry_mode="protected", serial=out.extend, **settings
    ) as machine:
        machine.start()
        wait_for_numbers(machine, out)
        yield machine, out


def wait_for_numbers(machine: Machine, out: bytearray, more: int = 20) -> None:
    """Wait until the guest has counted on."""
    enough = len(out) + _DIGITS * more
    for _ in range(600):
        outcome = machine.wait(0.05)
        assert outcome.reason == "timeout", outcome.message
        if len(out) >= enough:
            return
    raise AssertionError(f"the guest stopped counting after {len(out)} bytes")


def numbers(out: bytes) -> list[int]:
    """What was counted so far; a number that is only half there is left out."""
    whole = range(0, len(out) - _DIGITS + 1, _DIGITS)
    return [int.from_bytes(out[start : start + _DIGITS], "little") for start in whole]


def assert_gapless(*parts: bytes) -> None:
    """These outputs, one after the other, count from 0 on."""
    found = numbers(b"".join(parts))
    assert found == list(range(len(found)))
