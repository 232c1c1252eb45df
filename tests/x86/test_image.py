"""Guest images: flat and ELF, and every way in which one can be malformed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cpufw.errors import ImageError
from cpufw_x86.image import EntryMode, load_image

LOAD, NOTE = 1, 4
I386, X86_64, AARCH64 = 3, 62, 183


def elf(
    *segments: tuple[int, int, bytes, int],
    bits: int = 64,
    machine: int | None = None,
    entry: int = 0x10_0000,
    table: int | None = None,
    row_size: int | None = None,
) -> bytes:
    """An ELF file; a segment is its type, physical address, content, and size in memory."""
    wide = bits == 64
    header_size, size = (64, 56) if wide else (52, 32)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    start = header_size if table is None else table
    header = ident + struct.pack(
        "<HHI" + ("QQQ" if wide else "III") + "IHHHHHH",
        2,
        machine if machine is not None else (X86_64 if wide else I386),
        1,
        entry,
        start,
        0,
        0,
        header_size,
        size if row_size is None else row_size,
        len(segments),
        0,
        0,
        0,
    )
    offset = header_size + size * len(segments)
    rows, content = b"", b""
    for kind, address, data, memory in segments:
        virtual = address + 0x1000  # images are loaded where the physical address says
        here = offset + len(content)
        if wide:
            fields = (kind, 7, here, virtual, address, len(data), memory, 0x1000)
            rows += struct.pack("<IIQQQQQQ", *fields)
        else:
            fields = (kind, here, virtual, address, len(data), memory, 7, 0x1000)
            rows += struct.pack("<IIIIIIII", *fields)
        content += data
    return header + rows + content


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "guest.img"


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
    loaded = load_image(str(image), mode, address)
    assert (loaded.mode, loaded.entry) == expected
    (segment,) = loaded.segments
    assert (segment.address, segment.data, segment.size) == (expected[1], b"\xf4" * 10, 10)


@pytest.mark.parametrize(("bits", "mode"), [(32, EntryMode.PROTECTED), (64, EntryMode.LONG)])
def test_an_elf_image_says_where_it_goes(image: Path, bits: int, mode: EntryMode) -> None:
    image.write_bytes(
        elf(
            (LOAD, 0x10_0000, b"code", 4),
            (NOTE, 0x50_0000, b"note", 4),
            (LOAD, 0x20_0000, b"data", 0x2000),
            (LOAD, 0x30_0000, b"", 0x1000),
            (LOAD, 0x40_0000, b"", 0),
            bits=bits,
            entry=0x10_0002,
        )
    )
    loaded = load_image(image)
    assert (loaded.mode, loaded.entry, loaded.path) == (mode, 0x10_0002, image)
    assert [(each.address, each.data, each.size) for each in loaded.segments] == [
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
        load_image(image)
    assert str(caught.value).startswith(f"guest image {image} ")
    assert says in str(caught.value)


def test_what_does_not_fit_an_elf_image_is_refused(image: Path) -> None:
    image.write_bytes(elf(CODE))
    with pytest.raises(ImageError, match="it says itself where it is loaded"):
        load_image(image, address=0x1000)
    with pytest.raises(ImageError, match="entered in protected or long mode"):
        load_image(image, EntryMode.REAL)


def test_an_image_that_cannot_be_read_is_named_with_the_cause(image: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"guest image {image} cannot be read: No such file"):
        load_image(image)
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        load_image(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 119), st.binary(min_size=1, max_size=8), st.sampled_from([32, 64]))
@example(32, b"\xff" * 8, 64)
def test_no_header_breaks_the_loader(image: Path, at: int, junk: bytes, bits: int) -> None:
    """Whatever stands in the headers: an image whose segments hold what they say, or one error."""
    content = bytearray(elf(CODE, bits=bits))
    content[at : at + len(junk)] = junk
    image.write_bytes(content)
    try:
        loaded = load_image(image)
    except ImageError:
        return
    assert all(len(segment.data) <= segment.size for segment in loaded.segments)
    assert all(segment.data in bytes(content) for segment in loaded.segments)
