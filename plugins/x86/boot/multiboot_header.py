"""What Multiboot headers of both versions say: where a kernel is loaded and begins.

Sources: Multiboot Specification 0.6.96, 3.1; Multiboot2 Specification 2.0, 3.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from cpufw.errors import ImageError
from cpufw_x86.boot.elf import SectionTable, is_elf, parse_elf
from cpufw_x86.boot.layout import Segment

_MAGIC_1, _SEARCH_1, _ALIGN_1 = 0x1BADB002, 8192, 4
_HEADER_1, _ADDRESSES_1 = struct.Struct("<III"), struct.Struct("<IIIII")
_PAGE_ALIGN, _MEMORY_INFO, _VIDEO_MODE, _HAS_ADDRESSES = 1 << 0, 1 << 1, 1 << 2, 1 << 16
_REQUIRED_1 = 0xFFFF

_MAGIC_2, _SEARCH_2, _ALIGN_2 = 0xE85250D6, 32768, 8
_HEADER_2, _TAG_2 = struct.Struct("<IIII"), struct.Struct("<HHI")
_ARCHITECTURE_I386 = 0
_OPTIONAL = 1 << 0
_FROM_FILE_START = 0xFFFF_FFFF

# Header tags of Multiboot2, 3.1.3 to 3.1.13.
_END, _INFORMATION_REQUEST, _ADDRESS, _ENTRY, _CONSOLE = 0, 1, 2, 3, 4
_NEEDS_A_SCREEN = 1 << 0
# Frame buffer (a wish), module alignment (to pages: always), EFI boot services, the two EFI entries
# (they count under EFI only), relocatable (it is put where it was linked).
_NOTHING_TO_DO = frozenset((5, 6, 7, 8, 9, 10))

# Boot information tags of Multiboot2, 3.6, by what they tell.
_INFORMATION = {
    1: "command line",
    2: "boot loader name",
    3: "modules",
    4: "basic memory information",
    5: "BIOS boot device",
    6: "memory map",
    7: "VBE information",
    8: "framebuffer information",
    9: "ELF symbols",
    10: "APM table",
    11: "EFI 32-bit system table",
    12: "EFI 64-bit system table",
    13: "SMBIOS tables",
    14: "ACPI old RSDP",
    15: "ACPI new RSDP",
    16: "networking information",
    17: "EFI memory map",
    18: "EFI boot services not terminated",
    19: "EFI 32-bit image handle",
    20: "EFI 64-bit image handle",
    21: "image load base",
}
_PROVIDED = frozenset((1, 2, 3, 4, 6, 9, 14, 15))


class MultibootKernel(NamedTuple):
    """Where in memory a kernel goes, and the physical address at which it begins."""

    segments: tuple[Segment, ...]
    entry: int
    sections: SectionTable | None = None
    wide: bool = False

    @property
    def end(self) -> int:
        """Where in memory its last segment ends."""
        return max(each.end for each in self.segments)


def find_multiboot(content: bytes) -> int | None:
    """The offset of a Multiboot header, None if there is none in the first 8 KiB."""
    for at in range(0, min(len(content), _SEARCH_1) - _HEADER_1.size + 1, _ALIGN_1):
        magic, flags, checksum = _HEADER_1.unpack_from(content, at)
        if magic == _MAGIC_1 and magic + flags + checksum & 0xFFFF_FFFF == 0:
            return at
    return None


def find_multiboot2(content: bytes) -> int | None:
    """The offset of a Multiboot2 header, None if there is none in the first 32 KiB."""
    for at in range(0, min(len(content), _SEARCH_2) - _HEADER_2.size + 1, _ALIGN_2):
        fields = _HEADER_2.unpack_from(content, at)
        if fields[0] == _MAGIC_2 and sum(fields) & 0xFFFF_FFFF == 0:
            return at
    return None


def parse_multiboot(content: bytes, name: str) -> MultibootKernel:
    """Read the Multiboot header and the kernel that it describes; errors call it `name`.

    Raises `ImageError`.
    """
    at = find_multiboot(content)
    if at is None:
        raise ImageError(f"{name} has no Multiboot header in its first 8 KiB")
    _, flags, _ = _HEADER_1.unpack_from(content, at)
    if flags & _VIDEO_MODE:
        raise ImageError(f"{name} asks for a video mode in its Multiboot flags; there is no screen")
    unknown = flags & _REQUIRED_1 & ~(_PAGE_ALIGN | _MEMORY_INFO)
    if unknown:
        raise ImageError(f"{name} requires Multiboot flags {unknown:#x}, which nobody has defined")
    if not flags & _HAS_ADDRESSES:
        return _elf_kernel(content, name)
    try:
        addresses = _ADDRESSES_1.unpack_from(content, at + _HEADER_1.size)
    except struct.error:
        raise ImageError(f"{name} has a Multiboot header that is cut short") from None
    *place, entry = addresses
    return MultibootKernel((_flat_kernel(content, at, name, *place),), entry)


def parse_multiboot2(content: bytes, name: str) -> MultibootKernel:
    """Read the Multiboot2 header and the kernel that it describes; errors call it `name`.

    Raises `ImageError`, also for a required tag that is not known here.
    """
    at = find_multiboot2(content)
    if at is None:
        raise ImageError(f"{name} has no Multiboot2 header in its first 32 KiB")
    _, architecture, length, _ = _HEADER_2.unpack_from(content, at)
    if architecture != _ARCHITECTURE_I386:
        raise ImageError(f"{name} is Multiboot2 for architecture {architecture}, not for i386 (0)")
    place, entry = None, None
    try:
        for kind, required, body in _tags(content[at : at + min(length, _SEARCH_2)]):
            if kind == _ADDRESS:
                place = struct.unpack_from("<IIII", body)
            elif kind == _ENTRY:
                (entry,) = struct.unpack_from("<I", body)
            elif required:
                _check_required(kind, body, name)
    except struct.error:
        raise ImageError(f"{name} has a Multiboot2 header that is cut short") from None
    if place is None:
        kernel = _elf_kernel(content, name)
        entry = kernel.entry if entry is None else entry
        return MultibootKernel(kernel.segments, entry, kernel.sections, kernel.wide)
    if entry is None:
        raise ImageError(f"{name} has a Multiboot2 address tag, but no entry address tag")
    return MultibootKernel((_flat_kernel(content, at, name, *place),), entry)


def _tags(header: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """Type, whether it is required, and body of each tag; struct.error if there is no end tag."""
    at = _HEADER_2.size
    while True:
        kind, flags, size = _TAG_2.unpack_from(header, at)
        if kind == _END:
            return
        if size < _TAG_2.size:
            raise struct.error
        yield kind, not flags & _OPTIONAL, header[at + _TAG_2.size : at + size]
        at += -(-size // _ALIGN_2) * _ALIGN_2


def _check_required(kind: int, body: bytes, name: str) -> None:
    if kind == _INFORMATION_REQUEST:
        asked = struct.unpack_from(f"<{len(body) // 4}I", body)
        missing = [_INFORMATION.get(each, f"tag {each}") for each in asked if each not in _PROVIDED]
        if missing:
            raise ImageError(
                f"{name} requires Multiboot2 information that there is none of here: "
                f"{', '.join(missing[:5])}"
            )
    elif kind == _CONSOLE:
        if struct.unpack_from("<I", body)[0] & _NEEDS_A_SCREEN:
            raise ImageError(f"{name} requires a screen in its Multiboot2 console flags")
    elif kind not in _NOTHING_TO_DO:
        raise ImageError(f"{name} requires Multiboot2 header tag {kind}, unknown here")


def _elf_kernel(content: bytes, name: str) -> MultibootKernel:
    if not is_elf(content):
        raise ImageError(f"{name} has a Multiboot header without addresses, and is not ELF")
    elf = parse_elf(content, name)
    return MultibootKernel(elf.segments, elf.entry, elf.sections, elf.wide)


def _flat_kernel(
    content: bytes, at: int, name: str, header: int, load: int, load_end: int, bss_end: int
) -> Segment:
    """The kernel whose header, at `at` in the file, belongs at the address `header`."""
    if load == _FROM_FILE_START:
        load = header - at
    start = at - (header - load)
    length = load_end - load if load_end else len(content) - start
    if not 0 <= load <= header or start < 0 or length <= 0 or 0 < bss_end < load + length:
        raise ImageError(f"{name} has contradicting addresses in its Multiboot header")
    data = memoryview(content)[start : start + length]
    if len(data) < length:
        raise ImageError(f"{name} is cut short: its Multiboot header says it has more to load")
    return Segment(load, data, max(length, bss_end - load), name)
