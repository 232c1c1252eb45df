"""Whatever stands in headers: an image that fits, or one error in one sentence."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from boot_images import (
    LINUX_NOTE,
    LOAD,
    MIB,
    bzimage,
    elf,
    multiboot,
    multiboot2,
    ram,
    xen_note,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cpufw.errors import CpufwError
from cpufw_x86.boot import PROTOCOLS, load_guest
from cpufw_x86.boot.lz4 import MAGIC, Lz4LegacyDecompressor
from cpufw_x86.memory import GuestRam
from cpufw_x86.memory_map import MemoryMap

BASE = 0x10_0000
CODE = (LOAD, BASE, b"\xf4" * 64, 256)
REQUEST = (1, 0, struct.pack("<II", 4, 6))
PLACE = (2, 0, struct.pack("<IIII", BASE, BASE, 0, BASE + 0x1000))
ENTRY = (3, 0, struct.pack("<I", BASE + 64))
SECTIONS = [(2, 0, b"symbols"), (3, 0, b"names")]
SEEDS = [
    bzimage(),
    bzimage(b"stub" + elf(CODE, notes=[LINUX_NOTE]), payload=(4, 300)),
    elf(CODE, (*CODE[:1], BASE + 0x1000, *CODE[2:])),
    elf(CODE, bits=32),
    elf(CODE, notes=[LINUX_NOTE]),
    elf(CODE, notes=[xen_note(BASE)]),
    multiboot(1 << 16, (BASE, BASE, 0, BASE + 0x1000, BASE + 32), b"\xf4" * 32),
    elf((LOAD, BASE, multiboot(3), 100), bits=32),
    multiboot2(REQUEST, PLACE, ENTRY),
    elf((LOAD, BASE, bytes(4) + multiboot2(REQUEST), 100), bits=32, sections=SECTIONS),
]
MEMORY = 4 * MIB


@pytest.fixture(scope="module")
def memory() -> Iterator[GuestRam]:
    guest = ram(MEMORY)
    yield guest
    guest.close()


@st.composite
def images(draw: st.DrawFn) -> bytes:
    """One of the seeds with a few bytes or words of its first 700 changed, perhaps cut short."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        junk = draw(
            st.binary(min_size=1, max_size=8)
            | st.sampled_from([BASE, 0xFFFF_FFFF, 0x8000_0000, 0, 1]).map(
                lambda number: struct.pack("<I", number)
            )
            | st.just(b"\xff" * 8)
        )
        at = draw(st.integers(0, min(len(content) - 1, 700)))
        content[at : at + len(junk)] = junk
    return bytes(content[: draw(st.integers(1, len(content)) | st.just(len(content)))])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=images(), protocol=st.sampled_from([None, None, *PROTOCOLS]))
@example(content=SEEDS[2][:32] + b"\xff" * 8 + SEEDS[2][40:], protocol=None)
@example(content=SEEDS[0][:0x258] + b"\xff" * 12 + SEEDS[0][0x264:], protocol="linux")
def test_no_file_breaks_the_loader(
    content: bytes, protocol: str | None, memory: GuestRam, tmp_path: Path
) -> None:
    path = tmp_path / "guest"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        image = load_guest(path, protocol=protocol)
        image.place(memory, MemoryMap(MEMORY, 4096, image.firmware_size), 0xE_0000)
    except CpufwError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either way of ending is fine)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * MIB + MEMORY


@given(st.binary(max_size=200))
@example(b"\xf0" + b"\xff" * 100)
@example(b"\x1fa\x01\0" + b"\xff" * 90)
def test_no_lz4_block_unpacks_to_more_than_a_block(block: bytes) -> None:
    data = MAGIC + struct.pack("<I", len(block)) + block
    try:
        unpacked = Lz4LegacyDecompressor().decompress(data, 1 << 30)
    except OSError:
        return
    assert len(unpacked) <= 8 * MIB


@pytest.mark.parametrize("seed", SEEDS)
def test_the_seeds_themselves_can_be_placed_or_are_too_large(seed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "guest"
    path.write_bytes(seed)
    load_guest(path).place(ram(32 * MIB), MemoryMap(32 * MIB, 4096), None)
