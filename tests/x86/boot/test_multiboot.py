"""Multiboot of both versions: headers, and what a kernel is told."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from boot_images import LOAD, MIB, elf, multiboot, multiboot2, ram

from cpufw.errors import ImageError, UsageError
from cpufw_x86.boot import EntryMode, load_guest
from cpufw_x86.boot.layout import Environment, Layout, Segment
from cpufw_x86.boot.modules import split_modules
from cpufw_x86.memory_map import MemoryMap

BASE = 0x10_0000
HAS_ADDRESSES = 1 << 16
RSDP = b"RSD PTR " + bytes(range(28))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "guest"


def layout(path: Path, memory: int = 16 * MIB, **options: object) -> Layout:
    guest = load_guest(path, **options)  # type: ignore[arg-type]
    found = guest.layout(Environment(MemoryMap(memory), 0xE_0000, RSDP))
    found.check(Environment(MemoryMap(memory)))
    return found


def read(found: Layout, address: int, size: int) -> bytes:
    """What a guest reads there."""
    for each in found.segments:
        if each.address <= address < each.end:
            return bytes(each.data).ljust(each.size, b"\0")[address - each.address :][:size]
    raise AssertionError(f"nothing at {address:#x}")


def word(found: Layout, address: int) -> int:
    return int.from_bytes(read(found, address, 4), "little")


def string(found: Layout, address: int) -> str:
    return read(found, address, 4096).split(b"\0")[0].decode()


def module_files(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"1" * 5000)
    second.write_bytes(b"2" * 10)
    return first, second


# --- the first version --------------------------------------------------------------------


def test_a_kernel_is_told_of_memory_modules_and_command_line(image: Path, tmp_path: Path) -> None:
    first, second = module_files(tmp_path)
    image.write_bytes(elf((LOAD, BASE, multiboot(3), 0x1800), bits=32))
    found = layout(image, append="-smp 3", initrd=f"{first} a=1 b,{second}", modules=[f"{first}"])
    assert found.start.mode is EntryMode.PROTECTED
    assert found.start.registers["rax"] == 0x2BADB002
    info = found.start.registers["rbx"]
    assert word(found, info) == 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9
    assert (word(found, info + 4), word(found, info + 8)) == (639, 15 * 1024)
    assert string(found, word(found, info + 16)) == f"{image} -smp 3"
    assert string(found, word(found, info + 64)) == "cpufw"
    assert word(found, info + 20) == 3
    modules = [
        struct.unpack("<4I", read(found, word(found, info + 24) + 16 * i, 16)) for i in range(3)
    ]
    assert [string(found, each[2]) for each in modules] == [
        f"{first} a=1 b",
        str(second),
        str(first),
    ]
    assert [read(found, begin, end - begin) for begin, end, _, _ in modules] == [
        b"1" * 5000,
        b"2" * 10,
        b"1" * 5000,
    ]
    assert all(begin % 4096 == 0 and begin >= BASE + 0x1800 for begin, *_ in modules)
    length, address = word(found, info + 44), word(found, info + 48)
    ranges = list(struct.iter_unpack("<IQQI", read(found, address, length)))
    assert {each[0] for each in ranges} == {20}
    assert [each[1:] for each in ranges] == [
        (each.address, each.size, each.type) for each in MemoryMap(16 * MIB).e820()
    ]


def test_without_modules_the_flag_is_not_set_and_the_line_is_the_path(image: Path) -> None:
    image.write_bytes(elf((LOAD, BASE, multiboot(0), 100), bits=32))
    found = layout(image)
    info = found.start.registers["rbx"]
    assert not word(found, info) & 1 << 3
    assert string(found, word(found, info + 16)) == str(image)


@pytest.mark.parametrize(
    ("load", "load_end", "bss_end", "data", "size"),
    [
        (BASE, 0, 0, b"head", None),
        (BASE, BASE + 100, 0, b"head", 100),
        (BASE, 0, BASE + 0x1000, b"head", 0x1000),
        (BASE - 16, 0, 0, b"before", None),
    ],
)
def test_addresses_in_the_header_place_a_flat_kernel(
    load: int, load_end: int, bss_end: int, data: bytes, size: int | None, image: Path
) -> None:
    header = multiboot(HAS_ADDRESSES, (BASE, load, load_end, bss_end, BASE + 32), bytes(200))
    image.write_bytes(b"before".ljust(16, b"\0") + header)
    found = layout(image)
    kernel = found.segments[0]
    assert (kernel.address, found.start.address) == (load, BASE + 32)
    assert bytes(kernel.data).startswith(b"before" if data == b"before" else header[:32])
    whole = len(header) + BASE - load
    assert kernel.size == (whole if size is None else size)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (multiboot(1 << 2), "asks for a video mode"),
        (multiboot(1 << 5), "requires Multiboot flags 0x20"),
        (multiboot(0), "without addresses, and is not ELF"),
        (multiboot(HAS_ADDRESSES)[:20], "header that is cut short"),
        (multiboot(HAS_ADDRESSES, (BASE, BASE + 1, 0, 0, BASE)), "contradicting addresses"),
        (multiboot(HAS_ADDRESSES, (BASE, BASE - 1, 0, 0, BASE)), "contradicting addresses"),
        (multiboot(HAS_ADDRESSES, (BASE, BASE, BASE - 1, 0, BASE)), "contradicting addresses"),
        (multiboot(HAS_ADDRESSES, (BASE, BASE, 0, BASE + 1, BASE)), "contradicting addresses"),
        (multiboot(HAS_ADDRESSES, (BASE, BASE, BASE + 999, 0, BASE)), "is cut short"),
    ],
)
def test_a_header_that_cannot_be_met_is_refused(content: bytes, says: str, image: Path) -> None:
    image.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        load_guest(image)
    assert str(caught.value).startswith(f"guest image {image} ")
    assert says in str(caught.value)


def test_a_wrong_checksum_is_no_header(image: Path) -> None:
    content = bytearray(multiboot(0))
    content[8] ^= 1
    image.write_bytes(content)
    assert load_guest(image).protocol == "flat"
    with pytest.raises(ImageError, match="no Multiboot header in its first 8 KiB"):
        load_guest(image, protocol="multiboot")


# --- modules ------------------------------------------------------------------------------


def test_modules_are_split_at_commas_as_qemu_does() -> None:
    assert split_modules("a") == ["a"]
    assert split_modules("a x,b y z,c") == ["a x", "b y z", "c"]
    assert split_modules("a x,,y,b") == ["a x,y", "b"]


def test_modules_that_are_not_there_or_do_not_fit_are_named(image: Path, tmp_path: Path) -> None:
    image.write_bytes(elf((LOAD, BASE, multiboot(0), 100), bits=32))
    with pytest.raises(ImageError, match=f"module {tmp_path}/no cannot be read: No such file"):
        load_guest(image, initrd=f"{tmp_path}/no arguments")
    with pytest.raises(UsageError, match="a module has no file name"):
        load_guest(image, initrd=f"{image},")
    big = tmp_path / "big"
    big.write_bytes(bytes(16 * MIB))
    with pytest.raises(ImageError, match=f"module {big} has 16777216 bytes.* at least 18M"):
        layout(image, initrd=str(big))
    layout(image, 18 * MIB, initrd=str(big))
    with pytest.raises(ImageError, match="cannot be told of 1100 modules"):
        layout(image, 64 * MIB, modules=[f"{image} {'x' * 60}"] * 1100)


# --- the second version -------------------------------------------------------------------


def tags_of(found: Layout) -> dict[int, list[bytes]]:
    info = found.start.registers["rbx"]
    assert found.start.registers["rax"] == 0x36D76289
    assert info % 8 == 0
    total = word(found, info)
    tags: dict[int, list[bytes]] = {}
    at = 8
    while at < total:
        kind, size = word(found, info + at), word(found, info + at + 4)
        tags.setdefault(kind, []).append(read(found, info + at, size)[8:])
        at += -(-size // 8) * 8
    assert at == total
    assert kind == 0
    return tags


def test_a_multiboot2_kernel_is_told_the_same_in_tags(image: Path, tmp_path: Path) -> None:
    first, second = module_files(tmp_path)
    request = (1, 0, struct.pack("<8I", 1, 2, 3, 4, 6, 9, 14, 15))
    header = multiboot2(request, (6, 0, b""), (5, 0, bytes(12)), (77, 1, b"optional"))
    image.write_bytes(elf((LOAD, BASE, bytes(4) + header, 0x1800), bits=32))
    tags = tags_of(layout(image, append="a b", initrd=f"{first} one two,{second}"))
    assert tags[1] == [b"a b\0"]
    assert tags[2] == [b"cpufw\0"]
    found = layout(image, append="a b", initrd=f"{first} one two,{second}")
    contents = {b"one two\0": b"1" * 5000, b"\0": b"2" * 10}
    for tag in tags[3]:
        begin, end = struct.unpack_from("<II", tag)
        assert read(found, begin, end - begin) == contents.pop(tag[8:])
    assert not contents
    assert tags[4] == [struct.pack("<II", 639, 15 * 1024)]
    size, version = struct.unpack_from("<II", tags[6][0])
    assert (size, version) == (24, 0)
    assert [each[:3] for each in struct.iter_unpack("<QQII", tags[6][0][8:])] == [
        (each.address, each.size, each.type) for each in MemoryMap(16 * MIB).e820()
    ]
    assert (tags[14], tags[15]) == ([RSDP[:20]], [RSDP])
    assert 9 not in tags


@pytest.mark.parametrize("bits", [32, 64])
def test_symbols_are_where_the_section_headers_say(bits: int, image: Path) -> None:
    symtab, strtab, progbits, allocated = 2, 3, 1, 1 << 1
    sections = [
        (0, 0, b""),
        (progbits, allocated, b"code"),
        (symtab, 0, b"symbols" * 700),
        (strtab, 0, b"names"),
        (progbits, 0, b"debug"),
    ]
    header = multiboot2((1, 0, struct.pack("<I", 9)))
    pad = bytes(4 if bits == 32 else 0)
    image.write_bytes(elf((LOAD, BASE, pad + header, 99), bits=bits, sections=sections))
    found = layout(image)
    (tag,) = tags_of(found)[9]
    count, size, names = struct.unpack_from("<III", tag)
    assert (count, size, names) == (5, 40 if bits == 32 else 64, 0)
    rows = list(struct.iter_unpack("<IIIIIIIIII" if bits == 32 else "<IIQQQQIIQQ", tag[12:]))
    assert [row[1] for row in rows] == [0, progbits, symtab, strtab, progbits]
    assert read(found, rows[2][3], rows[2][5]) == b"symbols" * 700
    assert read(found, rows[3][3], rows[3][5]) == b"names"
    assert rows[4][3] == 0


def test_an_entry_tag_counts_before_the_elf_header(image: Path) -> None:
    header = multiboot2((3, 0, struct.pack("<I", BASE + 64)))
    image.write_bytes(elf((LOAD, BASE, header, 0x100)))
    found = layout(image)
    assert (found.start.address, found.start.mode) == (BASE + 64, EntryMode.PROTECTED)


@pytest.mark.parametrize("load", [BASE - 16, 0xFFFF_FFFF])
def test_an_address_tag_places_a_flat_multiboot2_kernel(load: int, image: Path) -> None:
    place = struct.pack("<IIII", BASE, load, 0, BASE + 0x2000)
    header = multiboot2((2, 0, place), (3, 0, struct.pack("<I", BASE + 64)))
    image.write_bytes(b"0123456789abcdef" + header)
    found = layout(image)
    kernel = found.segments[0]
    assert (kernel.address, kernel.end) == (BASE - 16, BASE + 0x2000)
    assert bytes(kernel.data) == image.read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (multiboot2((1, 0, struct.pack("<II", 4, 8))), "information .* framebuffer information"),
        (multiboot2((1, 0, struct.pack("<I", 99))), "information .* tag 99"),
        (multiboot2((77, 0, b"")), "requires Multiboot2 header tag 77"),
        (multiboot2((4, 0, struct.pack("<I", 1))), "requires a screen"),
        (multiboot2((2, 0, bytes(16))), "address tag, but no entry address tag"),
        (multiboot2((2, 0, bytes(8))), "header that is cut short"),
        (multiboot2((3, 0, b"")), "header that is cut short"),
        (multiboot2(length=8), "header that is cut short"),
        (multiboot2(length=16), "header that is cut short"),
        (multiboot2(architecture=4), "for architecture 4, not for i386"),
        (multiboot2(), "without addresses, and is not ELF"),
    ],
)
def test_a_multiboot2_header_that_cannot_be_met_is_refused(
    content: bytes, says: str, image: Path
) -> None:
    image.write_bytes(content)
    with pytest.raises(ImageError, match=says) as caught:
        load_guest(image)
    assert str(caught.value).startswith(f"guest image {image} ")


def test_the_copy_of_the_rsdp_is_what_is_in_memory(image: Path) -> None:
    image.write_bytes(elf((LOAD, BASE, multiboot2(), 0x100)))
    memory = ram(16 * MIB)
    memory.write(0xE_0000, RSDP)
    load_guest(image).place(memory, MemoryMap(16 * MIB, 4096), 0xE_0000)
    assert RSDP in memory.read(0x1_0000, 4096)


def test_what_lies_over_the_information_is_refused(image: Path) -> None:
    image.write_bytes(elf((LOAD, 0x1_0000, multiboot(0), 100), bits=32, entry=0x1_0000))
    with pytest.raises(ImageError, match=r"the Multiboot information needs 0x10000-.* overlap"):
        layout(image)


def test_segments_without_bytes_are_in_nobodys_way() -> None:
    start = Layout((), None)  # type: ignore[arg-type]
    segments = (Segment(0x1000, b"", 0, "nothing"), Segment(0x1000, b"x", 1, "a byte"))
    Layout(segments, start.start).check(Environment(MemoryMap(MIB)))
