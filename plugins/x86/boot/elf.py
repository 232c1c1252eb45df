"""ELF executables: what they load, where they begin, and their notes.

System V ABI, chapter 4 ("ELF Header", "Sections") and chapter 5 ("Program Header", "Note Section").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from cpufw.errors import ImageError
from cpufw_x86.boot.layout import Segment

_MAGIC = b"\x7fELF"
_ELFCLASS32, _ELFCLASS64 = 1, 2
_EM_386, _EM_X86_64 = 3, 62
_ELFDATA2LSB = 1
_ET_REL, _ET_CORE = 1, 4
_PT_LOAD, _PT_INTERP, _PT_NOTE = 1, 3, 4
_EHDR32, _PHDR32 = struct.Struct("<16xHHIIIIIHHHHHH"), struct.Struct("<IIIIIIII")
_EHDR64, _PHDR64 = struct.Struct("<16xHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_MOST_SEGMENTS = 256  # executables have a dozen; what a broken header says can be 65,535
_LONGEST_NOTES = 0x1_0000


class Note(NamedTuple):
    """An entry of a note segment."""

    owner: bytes
    type: int
    description: bytes


class SectionTable(NamedTuple):
    """Where in the file the section headers are, and which of them has their names."""

    offset: int
    entry_size: int
    number: int
    names: int


class Elf(NamedTuple):
    """An executable: `entry` is the physical address at which it begins.

    `segments` are in the order of their addresses and do not overlap.
    """

    wide: bool
    entry: int
    segments: tuple[Segment, ...]
    notes: tuple[Note, ...]
    sections: SectionTable

    @property
    def end(self) -> int:
        """Where in memory its last segment ends."""
        return max(each.end for each in self.segments)


def is_elf(content: bytes) -> bool:
    """Whether a file begins as ELF does."""
    return content.startswith(_MAGIC)


def parse_elf(content: bytes, name: str) -> Elf:
    """Read the headers of an executable for x86; errors call it `name`.

    Raises `ImageError` for one that is malformed, for another machine or an operating system.
    """
    wide = content[4:5] == bytes([_ELFCLASS64])
    header, program = (_EHDR64, _PHDR64) if wide else (_EHDR32, _PHDR32)
    if content[5:6] not in (b"", bytes([_ELFDATA2LSB])):
        raise ImageError(f"{name} is ELF with the wrong byte order for x86")
    try:
        fields = header.unpack_from(content)
        kind, machine, _, entry, table, section_table = fields[:6]
        _, _, row_size, count, *section_fields = fields[6:]
        if row_size != program.size and count:
            raise struct.error
        if count > _MOST_SEGMENTS:
            raise ImageError(f"{name} is ELF with {count} program headers, at most 256 are taken")
        rows = [program.unpack_from(content, table + i * program.size) for i in range(count)]
    except (struct.error, OverflowError):  # an offset beyond the file, or beyond any file
        raise ImageError(f"{name} is ELF, but its headers are cut short") from None
    if machine != (_EM_X86_64 if wide else _EM_386):
        raise ImageError(f"{name} is ELF for machine {machine}, not for x86")
    if kind == _ET_REL:
        raise ImageError(f"{name} is an ELF object file: link it first")
    if kind == _ET_CORE or any(row[0] == _PT_INTERP for row in rows):
        raise ImageError(
            f"{name} is an ELF {'core dump' if kind == _ET_CORE else 'program'} of an operating "
            "system, expected one that runs by itself (linked with -static -no-pie)"
        )
    notes: list[Note] = []
    segments: list[Segment] = []
    begin = None
    for row in rows:
        if wide:
            kind, _flags, offset, virtual, physical, file_size, size, _align = row
        else:
            kind, offset, virtual, physical, file_size, size, _flags, _align = row
        if kind == _PT_NOTE:
            notes += _notes(content[offset : offset + min(file_size, _LONGEST_NOTES)])
        if kind != _PT_LOAD or not size:
            continue
        data = memoryview(content)[offset : offset + file_size]
        if len(data) < file_size or file_size > size:
            raise ImageError(f"{name} is ELF, but a segment of it is cut short")
        segments.append(Segment(physical, data, size, name))
        # The entry is a virtual address where a segment is linked to run elsewhere than it is put.
        if begin is None and virtual <= entry < virtual + size:
            begin = entry - virtual + physical
    if not segments:
        raise ImageError(f"{name} is ELF, but has nothing to load")
    segments.sort(key=lambda segment: segment.address)
    if any(a.end > b.address for a, b in pairwise(segments)):
        raise ImageError(f"{name} is ELF with segments that overlap in memory")
    if any(each.address <= entry < each.end for each in segments):
        begin = entry
    if begin is None:
        raise ImageError(f"{name} begins at {entry:#x}, where it loads nothing")
    sections = SectionTable(section_table, *section_fields)
    return Elf(wide, begin, tuple(segments), tuple(notes), sections)


def _notes(data: bytes) -> Iterator[Note]:
    at = 0
    while at + _NOTE.size <= len(data):
        name_size, size, type = _NOTE.unpack_from(data, at)
        name = at + _NOTE.size
        description = name + -(-name_size // 4) * 4
        owner = data[name : name + name_size].rstrip(b"\0")
        yield Note(owner, type, data[description : description + size])
        at = description + -(-size // 4) * 4
