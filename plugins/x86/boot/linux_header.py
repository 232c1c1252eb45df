"""Linux's setup header, and the zero page (`struct boot_params`) that holds it.

Sources: Linux, Documentation/x86/boot.rst ("Details of header fields") and zero-page.rst.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from cpufw.errors import ImageError
from cpufw_x86.boot.layout import Environment, Segment
from cpufw_x86.memory_map import (
    BOOT_INFO,
    COMMAND_LINE,
    HIGH_MEMORY,
    PAGE,
    pack_e820,
)

# Offsets into the zero page; the setup header has the same in the file.
_ACPI_RSDP_ADDR, _E820_ENTRIES, _E820_TABLE = 0x070, 0x1E8, 0x2D0
_SETUP_SECTS, _BOOT_FLAG, _JUMP_DISTANCE, _MAGIC, _VERSION = 0x1F1, 0x1FE, 0x201, 0x202, 0x206
_TYPE_OF_LOADER, _LOADFLAGS, _CODE32_START = 0x210, 0x211, 0x214
_RAMDISK_IMAGE, _CMD_LINE_PTR, _INITRD_ADDR_MAX = 0x218, 0x228, 0x22C
_KERNEL_ALIGNMENT, _RELOCATABLE, _XLOADFLAGS, _CMDLINE_SIZE = 0x230, 0x234, 0x236, 0x238
_PAYLOAD_OFFSET, _PREF_ADDRESS, _INIT_SIZE = 0x248, 0x258, 0x260
_HEADER = slice(_SETUP_SECTS, 0x290)  # the EDD buffer comes after it

_SECTOR, _DEFAULT_SETUP_SECTS = 512, 4
_BOOT_FLAG_VALUE, _MAGIC_VALUE = 0xAA55, b"HdrS"
_LOADED_HIGH, _KEEP_SEGMENTS, _CAN_USE_HEAP = 1 << 0, 1 << 6, 1 << 7
_XLF_KERNEL_64 = 1 << 0
_UNDEFINED_LOADER = 0xFF

# What a kernel takes that does not say it.
_DEFAULT_CMDLINE_SIZE = 255
_DEFAULT_INITRD_ADDR_MAX = 0x37FF_FFFF
# What every x86 kernel since 2.6.22 says in its bzImage, and an ELF vmlinux has no place to say.
VMLINUX_CMDLINE_SIZE = 2047
VMLINUX_INITRD_ADDR_MAX = 0x7FFF_FFFF

ZERO_PAGE = BOOT_INFO.start


class SetupHeader(NamedTuple):
    """What a bzImage says about itself.

    `content` is the header as the zero page gets it, `code` the place in the file of what is
    loaded at `load_address`, `payload` the place of the compressed kernel (empty before 2.08).
    The kernel needs the memory up to `end` before it can look at its memory map.
    """

    content: bytes
    code: slice
    payload: slice
    load_address: int
    end: int
    initrd_addr_max: int
    cmdline_size: int
    has_64bit_entry: bool


def has_setup_header(content: bytes) -> bool:
    """Whether a file begins as a Linux kernel of boot protocol 2.00 or later does."""
    flag = int.from_bytes(content[_BOOT_FLAG : _BOOT_FLAG + 2], "little")
    return content[_MAGIC : _MAGIC + 4] == _MAGIC_VALUE and flag == _BOOT_FLAG_VALUE


def parse_setup_header(content: bytes, name: str) -> SetupHeader:
    """Read the setup header of a bzImage; errors call it `name`. Raises `ImageError`."""
    if int.from_bytes(content[_BOOT_FLAG : _BOOT_FLAG + 2], "little") != _BOOT_FLAG_VALUE:
        raise ImageError(f"{name} is not a Linux kernel: it has no boot flag 0xaa55 at 0x1fe")
    if not has_setup_header(content):
        raise ImageError(
            f"{name} has no Linux setup header, as before boot protocol 2.00; expected a bzImage"
        )
    # boot.rst: the header ends where the jump at its beginning leads.
    end = min(_JUMP_DISTANCE + 1 + content[_JUMP_DISTANCE], _HEADER.stop)
    if len(content) < max(end, _VERSION + 2):
        raise ImageError(f"{name} is a Linux kernel, but its setup header is cut short")
    header = content[:end]
    version = int.from_bytes(content[_VERSION : _VERSION + 2], "little")

    def field(offset: int, size: int, since: int) -> int:
        return int.from_bytes(header[offset : offset + size], "little") if version >= since else 0

    if not field(_LOADFLAGS, 1, 0x200) & _LOADED_HIGH:
        raise ImageError(
            f"{name} is a zImage of boot protocol {version >> 8}.{version & 0xFF:02}, which is "
            "loaded below 1 MiB; expected a bzImage"
        )
    code = ((content[_SETUP_SECTS] or _DEFAULT_SETUP_SECTS) + 1) * _SECTOR
    size = len(content) - code
    if size <= 0:
        raise ImageError(
            f"{name} is a Linux kernel, but is cut short: its code begins at {code:#x}, "
            f"and it has {len(content)} bytes"
        )
    load = field(_PREF_ADDRESS, 8, 0x20A) or field(_CODE32_START, 4, 0x200) or HIGH_MEMORY
    start = load
    alignment = field(_KERNEL_ALIGNMENT, 4, 0x205)
    if field(_RELOCATABLE, 1, 0x205) and alignment:  # boot.rst, init_size: where it will run
        start = -(-load // alignment) * alignment
    payload = code + field(_PAYLOAD_OFFSET, 4, 0x208)
    return SetupHeader(
        content=header[_HEADER],
        code=slice(code, len(content)),
        payload=slice(payload, payload + field(_PAYLOAD_OFFSET + 4, 4, 0x208)),
        load_address=load,
        end=start + max(size, field(_INIT_SIZE, 4, 0x20A)),
        initrd_addr_max=field(_INITRD_ADDR_MAX, 4, 0x203) or _DEFAULT_INITRD_ADDR_MAX,
        cmdline_size=field(_CMDLINE_SIZE, 4, 0x206) or _DEFAULT_CMDLINE_SIZE,
        has_64bit_entry=bool(field(_XLOADFLAGS, 2, 0x20C) & _XLF_KERNEL_64),
    )


def vmlinux_header() -> bytes:
    """A setup header for an ELF vmlinux, which has none: boot protocol 2.15."""
    page = bytearray(_HEADER.stop)
    struct.pack_into("<H2x4sH", page, _BOOT_FLAG, _BOOT_FLAG_VALUE, _MAGIC_VALUE, 0x20F)
    page[_LOADFLAGS] = _LOADED_HIGH
    return bytes(page[_HEADER])


def zero_page(
    header: bytes, environment: Environment, initrd: Segment | None, load: int
) -> Segment:
    """The zero page of a kernel loaded at `load`, whose command line is at COMMAND_LINE."""
    page = bytearray(PAGE)
    page[_SETUP_SECTS : _SETUP_SECTS + len(header)] = header
    ranges = environment.memory_map.e820()
    table = pack_e820(ranges)
    page[_E820_ENTRIES] = len(ranges)
    page[_E820_TABLE : _E820_TABLE + len(table)] = table
    struct.pack_into("<Q", page, _ACPI_RSDP_ADDR, environment.rsdp_address or 0)
    page[_TYPE_OF_LOADER] = _UNDEFINED_LOADER
    page[_LOADFLAGS] &= 0xFF & ~(_KEEP_SEGMENTS | _CAN_USE_HEAP)
    struct.pack_into("<I", page, _CODE32_START, load)
    disk = (initrd.address, initrd.size) if initrd is not None else (0, 0)
    struct.pack_into("<II", page, _RAMDISK_IMAGE, *disk)
    struct.pack_into("<I", page, _CMD_LINE_PTR, COMMAND_LINE.start)
    return Segment.of(ZERO_PAGE, bytes(page), "the zero page")
