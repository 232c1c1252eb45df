"""Images of every boot protocol, made without tools, and memory to put them into."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from cpufw.kvm import GuestMemory
from cpufw_x86.memory import GuestRam

MIB = 1 << 20
LOAD, NOTE = 1, 4
I386, X86_64, AARCH64 = 3, 62, 183

LINUX_NOTE = (b"Linux\0", 0x101, b"\0\0\0\0")


def xen_note(entry: int) -> tuple[bytes, int, bytes]:
    """XEN_ELFNOTE_PHYS32_ENTRY."""
    return (b"Xen\0", 18, struct.pack("<Q", entry))


def elf(
    *segments: tuple[int, int, bytes, int],
    bits: int = 64,
    machine: int | None = None,
    entry: int = 0x10_0000,
    table: int | None = None,
    row_size: int | None = None,
    notes: Sequence[tuple[bytes, int, bytes]] = (),
    sections: Sequence[tuple[int, int, bytes]] = (),
) -> bytes:
    """An ELF file; a segment is its type, physical address, content, and size in memory.

    `notes` are owner, type and description; `sections` are type, flags and content.
    """
    wide = bits == 64
    header_size, size = (64, 56) if wide else (52, 32)
    if notes:
        data = b""
        for owner, kind, text in notes:
            data += struct.pack("<III", len(owner), len(text), kind)
            data += owner + bytes(-len(owner) % 4) + text + bytes(-len(text) % 4)
        segments = (*segments, (NOTE, 0, data, len(data)))
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
    headers = b""
    for kind, flags, data in sections:
        row = (0, kind, flags, 0, offset + len(content), len(data), 0, 0, 1, 0)
        headers += struct.pack("<IIQQQQIIQQ" if wide else "<IIIIIIIIII", *row)
        content += data
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    header = ident + struct.pack(
        "<HHI" + ("QQQ" if wide else "III") + "IHHHHHH",
        2,
        machine if machine is not None else (X86_64 if wide else I386),
        1,
        entry,
        header_size if table is None else table,
        offset + len(content) if sections else 0,
        0,
        header_size,
        size if row_size is None else row_size,
        len(segments),
        (64 if wide else 40) if sections else 0,
        len(sections),
        0,
    )
    return header + rows + content + headers


def bzimage(
    code: bytes = b"kernel",
    *,
    version: int = 0x20F,
    loadflags: int = 1,
    xloadflags: int = 1,
    setup_sects: int = 1,
    preferred: int = 0x100_0000,
    init_size: int = 0x10_0000,
    alignment: int = 0x20_0000,
    relocatable: int = 1,
    initrd_addr_max: int = 0x7FFF_FFFF,
    cmdline_size: int = 2047,
    header_end: int = 0x26C,
    payload: tuple[int, int] = (0, 0),
) -> bytes:
    """A Linux bzImage; what is loaded begins with `code`, the 64-bit entry is 0x200 after that."""
    start = bytearray(((setup_sects or 4) + 1) * 512)
    start[0x1F1] = setup_sects
    struct.pack_into("<H", start, 0x1FE, 0xAA55)
    start[0x200:0x202] = bytes([0xEB, header_end - 0x202])
    start[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", start, 0x206, version)
    start[0x211] = loadflags
    struct.pack_into("<I", start, 0x214, 0x10_0000)
    struct.pack_into("<II", start, 0x22C, initrd_addr_max, alignment)
    struct.pack_into("<BBHI", start, 0x234, relocatable, 21, xloadflags, cmdline_size)
    struct.pack_into("<II", start, 0x248, *payload)
    struct.pack_into("<QI", start, 0x258, preferred, init_size)
    return bytes(start) + code


def multiboot(
    flags: int = 0, addresses: Sequence[int] = (), code: bytes = b"", magic: int = 0x1BADB002
) -> bytes:
    """A Multiboot header, followed by code at an offset of 32."""
    header = struct.pack("<III", magic, flags, -(magic + flags) & 0xFFFF_FFFF)
    return (header + struct.pack(f"<{len(addresses)}I", *addresses)).ljust(32, b"\0") + code


def multiboot2(
    *tags: tuple[int, int, bytes], architecture: int = 0, length: int | None = None
) -> bytes:
    """A Multiboot2 header; a tag is its type, flags and body. The end tag is added."""
    body = b""
    for kind, flags, data in (*tags, (0, 0, b"")):
        body += struct.pack("<HHI", kind, flags, 8 + len(data)) + data + bytes(-len(data) % 8)
    size = 16 + len(body) if length is None else length
    magic = 0xE85250D6
    return (
        struct.pack("<IIII", magic, architecture, size, -(magic + architecture + size) % 2**32)
        + body
    )


class NoVm:
    """Takes the memory that a VM would be given."""

    def __init__(self) -> None:
        self.memory: dict[int, GuestMemory] = {}

    def add_memory(
        self,
        slot: int,
        _address: int,
        memory: GuestMemory,
        readonly: bool = False,  # noqa: ARG002 (as the real one)
    ) -> None:
        self.memory[slot] = memory


def ram(size: int) -> GuestRam:
    """RAM that no guest runs in."""
    return GuestRam(NoVm(), size)  # type: ignore[arg-type]
