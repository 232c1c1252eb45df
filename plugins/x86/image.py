"""Guest images: flat binaries and ELF executables, and where in memory they go."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from pathlib import Path

from cpufw.errors import ImageError


class EntryMode(enum.Enum):
    """The processor mode in which an image is entered."""

    REAL = "real"
    PROTECTED = "protected"
    LONG = "long"


# A boot sector's address by the IBM PC's convention; 1 MiB is the first byte above its low memory.
_FLAT_ADDRESS = {
    EntryMode.REAL: 0x7C00,
    EntryMode.PROTECTED: 0x10_0000,
    EntryMode.LONG: 0x10_0000,
}

# System V ABI, "ELF Header" and "Program Header"; EM_386 and EM_X86_64 in the x86 supplements.
_ELF_MAGIC = b"\x7fELF"
_ELFCLASS32, _ELFCLASS64 = 1, 2
_EM_386, _EM_X86_64 = 3, 62
_ELFDATA2LSB = 1
_ET_REL, _ET_CORE = 1, 4
_PT_LOAD, _PT_INTERP = 1, 3
_EHDR32, _PHDR32 = struct.Struct("<16xHHIIIIIHHHHHH"), struct.Struct("<IIIIIIII")
_EHDR64, _PHDR64 = struct.Struct("<16xHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")


@dataclass(frozen=True)
class Segment:
    """Bytes for guest-physical `address`, followed by zeros up to `size` bytes."""

    address: int
    data: bytes
    size: int


@dataclass(frozen=True)
class Image:
    """What to put into memory, and where and in which mode to begin."""

    path: Path
    segments: tuple[Segment, ...]
    entry: int
    mode: EntryMode


def load_image(
    path: Path | str, mode: EntryMode | None = None, address: int | None = None
) -> Image:
    """Read the image at `path`: ELF by its magic number, anything else is flat.

    `mode` defaults to real for flat images, protected for 32-bit and long for 64-bit ELF;
    `address` moves a flat image. Raises `ImageError`.
    """
    path = Path(path)
    try:
        if path.is_char_device():  # /dev/zero has no end
            raise ImageError(f"guest image {path} is a device, expected a file")
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"guest image {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ImageError(f"guest image {str(path)!r} is not a path") from None
    if not content:
        raise ImageError(f"guest image {path} is empty")
    if content.startswith(_ELF_MAGIC):
        if address is not None:
            raise ImageError(f"guest image {path} is ELF: it says itself where it is loaded")
        return _elf(path, content, mode)
    mode = mode or EntryMode.REAL
    address = _FLAT_ADDRESS[mode] if address is None else address
    return Image(path, (Segment(address, content, len(content)),), address, mode)


def _elf(path: Path, content: bytes, mode: EntryMode | None) -> Image:
    wide = content[4:5] == bytes([_ELFCLASS64])
    header, program = (_EHDR64, _PHDR64) if wide else (_EHDR32, _PHDR32)
    if content[5:6] not in (b"", bytes([_ELFDATA2LSB])):
        raise ImageError(f"guest image {path} is ELF with the wrong byte order for x86")
    try:
        fields = header.unpack_from(content)
        kind, machine, entry, table, count = (fields[i] for i in (0, 1, 3, 4, 9))
        if fields[8] != program.size and count:
            raise struct.error
        rows = [program.unpack_from(content, table + i * program.size) for i in range(count)]
    except (struct.error, OverflowError):  # an offset beyond the file, or beyond any file
        raise ImageError(f"guest image {path} is ELF, but its headers are cut short") from None
    if machine != (_EM_X86_64 if wide else _EM_386):
        raise ImageError(f"guest image {path} is ELF for machine {machine}, not for x86")
    if kind == _ET_REL:
        raise ImageError(f"guest image {path} is an ELF object file: link it first")
    if kind == _ET_CORE or any(row[0] == _PT_INTERP for row in rows):
        raise ImageError(
            f"guest image {path} is an ELF {'core dump' if kind == _ET_CORE else 'program'} of an "
            "operating system, expected one that runs by itself (linked with -static -no-pie)"
        )
    segments, begin = [], None
    for row in rows:
        if wide:
            kind, _flags, offset, virtual, physical, file_size, size, _align = row
        else:
            kind, offset, virtual, physical, file_size, size, _flags, _align = row
        if kind != _PT_LOAD or not size:
            continue
        data = content[offset : offset + file_size]
        if len(data) < file_size or file_size > size:
            raise ImageError(f"guest image {path} is ELF, but a segment of it is cut short")
        segments.append(Segment(physical, data, size))
        # The entry is a virtual address where a segment is linked to run elsewhere than it is put.
        if begin is None and virtual <= entry < virtual + size:
            begin = entry - virtual + physical
    if not segments:
        raise ImageError(f"guest image {path} is ELF, but has nothing to load")
    if any(each.address <= entry < each.address + each.size for each in segments):
        begin = entry
    if begin is None:
        raise ImageError(f"guest image {path} begins at {entry:#x}, where it loads nothing")
    if mode is EntryMode.REAL:
        raise ImageError(f"guest image {path} is ELF: it is entered in protected or long mode")
    return Image(
        path, tuple(segments), begin, mode or (EntryMode.LONG if wide else EntryMode.PROTECTED)
    )
