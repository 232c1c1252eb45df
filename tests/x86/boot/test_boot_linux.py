"""Linux: what the zero page holds, where kernel and initrd go, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import struct
from pathlib import Path

import pytest
from boot_images import LINUX_NOTE, LOAD, MIB, bzimage, elf, ram

from cpufw.errors import ImageError, UsageError
from cpufw_x86.boot import EntryMode, GuestImage, load_guest
from cpufw_x86.boot.layout import Environment, Layout, Segment
from cpufw_x86.memory_map import MemoryMap, pack_e820

VMLINUX = elf((LOAD, 0x100_0000, b"text" * 100, 0x20_0000), entry=0x100_0000, notes=[LINUX_NOTE])


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "kernel"
    path.write_bytes(bzimage())
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "initrd.img"
    path.write_bytes(b"disk" * 1500)
    return path


def layout(image: GuestImage, memory: int = 64 * MIB, acpi: int = 0) -> Layout:
    rsdp = 0xE_0000 if acpi else None
    return image.layout(Environment(MemoryMap(memory, acpi), rsdp, b"RSD PTR "))


def segment(found: Layout, what: str) -> Segment:
    (one,) = (each for each in found.segments if each.what.startswith(what))
    return one


def zero_page(found: Layout) -> bytes:
    page = bytes(segment(found, "the zero page").data)
    assert found.start.registers == {"rsi": segment(found, "the zero page").address}
    return page


def word(page: bytes, offset: int, size: int = 4) -> int:
    return int.from_bytes(page[offset : offset + size], "little")


@pytest.mark.parametrize("content", [bzimage(), VMLINUX], ids=["bzImage", "vmlinux"])
def test_the_zero_page_tells_of_memory_acpi_initrd_and_command_line(
    content: bytes, kernel: Path, disk: Path
) -> None:
    kernel.write_bytes(content)
    image = load_guest(kernel, initrd=str(disk), append="console=ttyS0 räm")
    found = layout(image, acpi=10_000)
    page = zero_page(found)
    memory_map = MemoryMap(64 * MIB, 10_000)
    table = pack_e820(memory_map.e820())
    assert page[0x1E8] == len(table) // 20
    assert page[0x2D0 : 0x2D0 + len(table)] == table
    assert word(page, 0x070, 8) == 0xE_0000
    assert (word(page, 0x1FE, 2), page[0x202:0x206], page[0x210]) == (0xAA55, b"HdrS", 0xFF)
    line = segment(found, "the command line")
    assert (line.address, line.data) == (word(page, 0x228), "console=ttyS0 räm\0".encode())
    where = segment(found, "initrd")
    assert (where.address, where.size) == (word(page, 0x218), word(page, 0x21C))
    assert where.data == disk.read_bytes()
    assert where.address % 4096 == 0
    assert memory_map.acpi_address - 8192 < where.address + where.size <= memory_map.acpi_address


def test_a_bzimage_goes_where_it_prefers_and_keeps_its_header(kernel: Path) -> None:
    kernel.write_bytes(bzimage(b"\x90" * 700, preferred=0x120_0000, setup_sects=0))
    found = layout(load_guest(kernel))
    code = segment(found, "guest image")
    assert (code.address, bytes(code.data)) == (0x120_0000, b"\x90" * 700)
    assert (found.start.mode, found.start.address) == (EntryMode.LONG, 0x120_0200)
    page = zero_page(found)
    assert word(page, 0x214) == 0x120_0000
    assert page[0x22C:0x26C] == kernel.read_bytes()[0x22C:0x26C]
    assert not any(page[0x26C:0x290])


def test_a_kernel_before_2_10_goes_to_its_code32_start(kernel: Path) -> None:
    kernel.write_bytes(bzimage(version=0x209, preferred=0x120_0000, relocatable=0))
    found = layout(load_guest(kernel))
    assert (found.start.mode, found.start.address) == (EntryMode.PROTECTED, 0x10_0000)


@pytest.mark.parametrize(
    ("protocol", "xloadflags", "mode", "distance"),
    [
        (None, 1, EntryMode.LONG, 0x200),
        (None, 0, EntryMode.PROTECTED, 0),
        ("linux", 1, EntryMode.LONG, 0x200),
        ("linux32", 1, EntryMode.PROTECTED, 0),
        ("linux32", 0, EntryMode.PROTECTED, 0),
    ],
)
def test_the_entry_is_the_64_bit_one_where_there_is_one(
    protocol: str | None, xloadflags: int, mode: EntryMode, distance: int, kernel: Path
) -> None:
    kernel.write_bytes(bzimage(xloadflags=xloadflags))
    image = load_guest(kernel, protocol=protocol)
    assert image.protocol == ("linux" if mode is EntryMode.LONG else "linux32")
    start = layout(image).start
    assert (start.mode, start.address) == (mode, 0x100_0000 + distance)


def test_a_vmlinux_is_entered_in_the_mode_of_its_class(kernel: Path) -> None:
    kernel.write_bytes(VMLINUX)
    image = load_guest(kernel)
    assert image.protocol == "linux"
    assert layout(image).start.address == 0x100_0000
    with pytest.raises(ImageError, match="64-bit vmlinux: boot it as linux,"):
        load_guest(kernel, protocol="linux32")
    code = (LOAD, 0x100_0000, b"text", 4)
    kernel.write_bytes(elf(code, entry=0x100_0000, notes=[LINUX_NOTE], bits=32))
    image = load_guest(kernel)
    assert image.protocol == "linux32"
    assert layout(image).start.mode is EntryMode.PROTECTED


@pytest.mark.parametrize(
    ("content", "protocol", "says"),
    [
        (bzimage(xloadflags=0), "linux", "without a 64-bit entry: boot it as linux32"),
        (bzimage(version=0x20B), "linux", "without a 64-bit entry"),
        (bzimage()[:0x240], None, "setup header is cut short"),
        (bzimage()[:1024], None, "cut short: its code begins at 0x400"),
        (bzimage(loadflags=0), None, "zImage of boot protocol 2.15"),
        (b"\0" * 0x1FE + b"\x55\xaa" + b"\0" * 600, "linux", "before boot protocol 2.00"),
        (b"\xf4" * 2000, "linux", "is not a Linux kernel"),
        (b"MZ", "linux32", "is not a Linux kernel"),
    ],
)
def test_what_is_no_kernel_for_that_entry_is_refused(
    content: bytes, protocol: str | None, says: str, kernel: Path
) -> None:
    kernel.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        load_guest(kernel, protocol=protocol)
    assert str(caught.value).startswith(f"guest image {kernel} ")
    assert says in str(caught.value)


def test_the_command_line_must_fit_the_kernel(kernel: Path) -> None:
    kernel.write_bytes(bzimage(cmdline_size=100))
    load_guest(kernel, append="x" * 100)
    with pytest.raises(UsageError, match=r"has 101 bytes, but guest image .* takes 100"):
        load_guest(kernel, append="x" * 101)
    with pytest.raises(UsageError, match="zero byte"):
        load_guest(kernel, append="a\0b")
    kernel.write_bytes(bzimage(version=0x205))
    with pytest.raises(UsageError, match="takes 255"):
        load_guest(kernel, append="x" * 256)
    kernel.write_bytes(VMLINUX)
    with pytest.raises(UsageError, match="takes 2047"):
        load_guest(kernel, append="x" * 2048)


@pytest.mark.parametrize(
    "content",
    [bzimage(init_size=20 * MIB), bzimage(b"k" * 5 * MIB, version=0x209), VMLINUX],
    ids=["by init_size", "by its size", "vmlinux"],
)
@pytest.mark.parametrize("acpi", [0, 5000])
def test_the_memory_said_to_be_needed_is_enough_and_less_is_not(
    content: bytes, acpi: int, kernel: Path, disk: Path
) -> None:
    kernel.write_bytes(content)
    for initrd in (None, str(disk)):
        image = load_guest(kernel, initrd=initrd)
        advice = [2]
        while (more := memory_asked_for(image, advice[-1], acpi)) is not None:
            assert more > advice[-1]
            assert memory_asked_for(image, more - 1, acpi) is not None
            advice.append(more)
        # The kernel asks first, then the initrd.
        assert len(advice) <= 3


def memory_asked_for(image: GuestImage, memory: int, acpi: int) -> int | None:
    """How many MiB the refusal says are needed; None if `memory` is enough."""
    try:
        layout(image, memory * MIB, acpi)
    except ImageError as error:
        more = re.search(r"at least (\d+)M", str(error))
        return int(more[1]) if more is not None else 0
    return None


def test_an_initrd_stays_below_what_the_kernel_can_reach(kernel: Path, disk: Path) -> None:
    kernel.write_bytes(bzimage(initrd_addr_max=0x1FF_FFFF, init_size=MIB))
    image = load_guest(kernel, initrd=str(disk))
    where = segment(layout(image), "initrd")
    assert 0x1FF_D000 <= where.address + where.size <= 0x200_0000
    disk.write_bytes(bytes(16 * MIB))
    image = load_guest(kernel, initrd=str(disk))
    with pytest.raises(ImageError, match="takes none that reaches beyond 0x1ffffff"):
        layout(image)


def test_an_initrd_that_cannot_be_read_is_named(kernel: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"initrd {tmp_path}/no cannot be read: No such file"):
        load_guest(kernel, initrd=f"{tmp_path}/no")
    with pytest.raises(ImageError, match="initrd /dev/null is a device"):
        load_guest(kernel, initrd="/dev/null")
    (tmp_path / "empty").touch()
    with pytest.raises(ImageError, match=f"initrd {tmp_path}/empty is empty"):
        load_guest(kernel, initrd=f"{tmp_path}/empty")


def test_a_kernel_over_the_acpi_tables_is_refused(kernel: Path) -> None:
    kernel.write_bytes(elf((LOAD, 0xE_0000, b"\xf4", 1), entry=0xE_0000))
    memory_map = MemoryMap(16 * MIB, 4096)
    image = load_guest(kernel)
    with pytest.raises(ImageError, match="covers 0xe0000-0xe0023, where the ACPI tables are"):
        image.place(ram(16 * MIB), memory_map, 0xE_0000)
    image.place(ram(16 * MIB), memory_map, None)


def test_a_second_start_finds_what_the_first_did(kernel: Path, disk: Path) -> None:
    kernel.write_bytes(VMLINUX)
    image = load_guest(kernel, initrd=str(disk), append="quiet")
    memory, memory_map = ram(32 * MIB), MemoryMap(32 * MIB)
    image.place(memory, memory_map, None)
    first = memory.read(0, 32 * MIB)
    for each in image.layout(Environment(memory_map)).segments:
        memory.write(each.address, b"\xcc" * each.size)
    memory.write(0x9_0000, b"\xcc" * 0x7000)
    image.place(memory, memory_map, None)
    assert memory.read(0, 32 * MIB) == first


def test_nothing_is_written_when_something_does_not_fit(kernel: Path) -> None:
    kernel.write_bytes(
        elf((LOAD, 0x10_0000, b"text", 4), (LOAD, 0x900_0000, b"data", 4), entry=0x10_0000)
    )
    memory = ram(16 * MIB)
    with pytest.raises(ImageError, match="at least 145M"):
        load_guest(kernel).place(memory, MemoryMap(16 * MIB), None)
    assert not any(memory.read(0, 16 * MIB))


def packed(payload: bytes) -> bytes:
    return bzimage(b"stub" + payload + b"tail", payload=(4, len(payload)))


def lz4(data: bytes) -> bytes:
    """One block of LZ4's legacy format, in which what repeats after 1 to 8 bytes is a match."""

    def sequence(literals: bytes, distance: int = 0, length: int = 0) -> bytes:
        counts = (len(literals), length - 4 if distance else 0)
        token = min(counts[0], 15) << 4 | min(counts[1], 15)
        first, second = (
            b"\xff" * ((count - 15) // 255) + bytes([(count - 15) % 255]) if count >= 15 else b""
            for count in counts
        )
        match = struct.pack("<H", distance) + second if distance else b""
        return bytes([token]) + first + literals + match

    block, literals, at = b"", b"", 0
    while at < len(data):
        for distance in range(1, min(at, 8) + 1):
            length = 0
            while at + length < len(data) and data[at + length] == data[at + length - distance]:
                length += 1
            if length >= 4:
                block += sequence(literals, distance, length)
                literals, at = b"", at + length
                break
        else:
            literals += data[at : at + 1]
            at += 1
    block += sequence(literals)
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


@pytest.mark.parametrize(
    "payload",
    [
        gzip.compress(VMLINUX, mtime=0),
        bz2.compress(VMLINUX),
        lzma.compress(VMLINUX),
        lzma.compress(VMLINUX, lzma.FORMAT_ALONE),
        lz4(VMLINUX),
        VMLINUX,
    ],
    ids=["gzip", "bzip2", "xz", "lzma", "lz4", "stored"],
)
def test_a_bzimage_can_be_unpacked_before_the_start(kernel: Path, payload: bytes) -> None:
    kernel.write_bytes(packed(payload + struct.pack("<I", len(VMLINUX))))
    found = layout(load_guest(kernel, protocol="vmlinux"))
    code = segment(found, "guest image")
    assert (code.address, bytes(code.data)[:8]) == (0x100_0000, b"texttext")
    assert (found.start.mode, found.start.address) == (EntryMode.LONG, 0x100_0000)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (gzip.compress(VMLINUX, mtime=0)[:-20], "cut short"),
        (gzip.compress(VMLINUX, mtime=0)[:50] + b"\xff" * 100, "damaged"),
        (lzma.compress(VMLINUX)[:-30], "cut short"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "compressed with Zstandard"),
        (lz4(VMLINUX)[:-30], "cut short"),
        (lz4(VMLINUX)[:12] + b"\xff" * 50 + lz4(VMLINUX)[62:], "damaged"),
        (b"\x89LZO" + bytes(100), "compressed with LZO"),
        (gzip.compress(b"no kernel", mtime=0), "no ELF kernel in it"),
        (b"", "no ELF kernel in it"),
        (gzip.compress(bytes(300 * MIB), 1), "has more than 256 MiB"),
    ],
)
def test_a_payload_that_is_no_kernel_is_refused(kernel: Path, payload: bytes, says: str) -> None:
    kernel.write_bytes(packed(payload))
    with pytest.raises(ImageError, match=says):
        load_guest(kernel, protocol="vmlinux")
