"""Flat and ELF images, and every way in which one can be malformed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from boot_images import AARCH64, I386, LOAD, MIB, NOTE, X86_64, elf

from cpufw.errors import ImageError
from cpufw_x86.boot import EntryMode, load_guest
from cpufw_x86.boot.layout import Environment, Layout
from cpufw_x86.memory_map import MemoryMap


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "guest.img"


def layout_of(path: Path, mode: EntryMode | None = None, address: int | None = None) -> Layout:
    image = load_guest(path, entry_mode=mode, load_address=address)
    return image.layout(Environment(MemoryMap(16 * MIB)))


@pytest.mark.parametrize(
    ("mode", "address", "expected"),
    [
        (None, None, (EntryMode.REAL, 0x7C00)),
        (EntryMode.REAL, None, (EntryMode.REAL, 0x7C00)),
        (EntryMode.PROTECTED, None, (EntryMode.PROTECTED, 0x10_0000)),
        (EntryMode.LONG, None, (EntryMode.LONG, 0x10_0000)),
        (None, 0x8000, (EntryMode.REAL, 0x8000)),
        (EntryMode.LONG, 0, (EntryMode.LONG, 0)),
    ],
)
def test_a_flat_image_goes_where_its_mode_or_the_user_says(
    image: Path,
    mode: EntryMode | None,
    address: int | None,
    expected: tuple[EntryMode, int],
) -> None:
    image.write_bytes(b"\xf4" * 10)
    layout = layout_of(image, mode, address)
    assert (layout.start.mode, layout.start.address) == expected
    (segment,) = layout.segments
    assert (segment.address, segment.data, segment.size) == (expected[1], b"\xf4" * 10, 10)


@pytest.mark.parametrize(("bits", "mode"), [(32, EntryMode.PROTECTED), (64, EntryMode.LONG)])
def test_an_elf_image_says_where_it_goes(image: Path, bits: int, mode: EntryMode) -> None:
    image.write_bytes(
        elf(
            (LOAD, 0x10_0000, b"code", 4),
            (NOTE, 0x50_0000, b"note", 4),
            (LOAD, 0x30_0000, b"", 0x1000),
            (LOAD, 0x20_0000, b"data", 0x2000),
            (LOAD, 0x40_0000, b"", 0),
            bits=bits,
            entry=0x10_0002,
        )
    )
    layout = layout_of(image)
    assert (layout.start.mode, layout.start.address) == (mode, 0x10_0002)
    assert [(each.address, bytes(each.data), each.size) for each in layout.segments] == [
        (0x10_0000, b"code", 4),
        (0x20_0000, b"data", 0x2000),
        (0x30_0000, b"", 0x1000),
    ]


CODE = (LOAD, 0x10_0000, b"code", 4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\x7fELF", "headers are cut short"),
        (elf(CODE)[:40], "headers are cut short"),
        (elf(CODE)[:100], "headers are cut short"),
        (elf(CODE, bits=32)[:50], "headers are cut short"),
        (elf(CODE, table=0x1000), "headers are cut short"),
        (elf(CODE, table=2**64 - 8), "headers are cut short"),
        (elf(CODE, table=2**63), "headers are cut short"),
        (elf(CODE, row_size=40), "headers are cut short"),
        (elf(CODE)[:-1], "a segment of it is cut short"),
        (elf((LOAD, 0, b"code", 3)), "a segment of it is cut short"),
        (elf(CODE, (LOAD, 0x10_0003, b"more", 4)), "segments that overlap"),
        (elf(*[(NOTE, 0, b"", 0)] * 300), "300 program headers, at most 256"),
        (elf(CODE, machine=AARCH64), "is ELF for machine 183, not for x86"),
        (elf(CODE, machine=I386), "is ELF for machine 3, not for x86"),
        (elf(CODE, machine=X86_64, bits=32), "is ELF for machine 62, not for x86"),
        (elf(), "has nothing to load"),
        (elf((NOTE, 0, b"note", 4)), "has nothing to load"),
    ],
)
def test_a_malformed_image_is_refused(image: Path, content: bytes, says: str) -> None:
    image.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        load_guest(image)
    assert str(caught.value).startswith(f"guest image {image} ")
    assert says in str(caught.value)


def test_an_elf_image_is_not_entered_in_real_mode(image: Path) -> None:
    image.write_bytes(elf(CODE))
    with pytest.raises(ImageError, match="entered in protected or long mode"):
        load_guest(image, entry_mode=EntryMode.REAL)


def test_an_image_that_cannot_be_read_is_named_with_the_cause(image: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"guest image {image} cannot be read: No such file"):
        load_guest(image)
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        load_guest(tmp_path)
    with pytest.raises(ImageError, match="/dev/zero is a device, expected a file"):
        load_guest("/dev/zero")
    with pytest.raises(ImageError, match="is not a path"):
        load_guest("a\0b")


def test_an_image_may_come_through_a_pipe(image: Path) -> None:
    os.mkfifo(image)
    content = b"\xf4" * 3 * MIB
    writer = threading.Thread(target=image.write_bytes, args=(content,))
    writer.start()
    (segment,) = layout_of(image).segments
    writer.join()
    assert segment.data == content


def test_a_file_larger_than_all_low_memory_is_refused_unread(image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(3 * 1024 * MIB + 1)
    with pytest.raises(ImageError, match="larger than 3 GiB"):
        load_guest(image)
