"""A kernel's ELF section headers and symbols, which Multiboot2 passes on.

System V ABI, chapter 4, "Sections".
"""

from __future__ import annotations

import struct

from cpufw_x86.boot.layout import Segment
from cpufw_x86.boot.multiboot_header import MultibootKernel
from cpufw_x86.memory_map import page_up

_SHDR32, _SHDR64 = struct.Struct("<IIIIIIIIII"), struct.Struct("<IIQQQQIIQQ")
_SHT_SYMTAB, _SHT_STRTAB = 2, 3
_SHF_ALLOC = 1 << 1
_TYPE, _FLAGS, _ADDRESS, _OFFSET, _SIZE = 1, 2, 3, 4, 5  # fields of a header
_MOST_SECTIONS = 256


def place_sections(
    content: bytes, kernel: MultibootKernel, after: int, name: str
) -> tuple[bytes, tuple[Segment, ...]]:
    """The body of an ELF symbols tag, and the symbol and string tables from `after` on.

    The section headers say where those were put. Empty where the file has no section headers, or
    none that make sense.
    """
    table, header = kernel.sections, _SHDR64 if kernel.wide else _SHDR32
    if table is None or table.entry_size != header.size or not 0 < table.number <= _MOST_SECTIONS:
        return b"", ()
    data = content[table.offset : table.offset + table.number * header.size]
    if len(data) < table.number * header.size:
        return b"", ()
    rows, segments = [], []
    address = page_up(after)
    for fields in header.iter_unpack(data):
        row = list(fields)
        if row[_TYPE] in (_SHT_SYMTAB, _SHT_STRTAB) and not row[_FLAGS] & _SHF_ALLOC:
            symbols = memoryview(content)[row[_OFFSET] : row[_OFFSET] + row[_SIZE]]
            row[_ADDRESS] = address
            segments.append(Segment.of(address, symbols, f"the symbols of {name}"))
            address = page_up(address + len(symbols))
        rows.append(header.pack(*row))
    head = struct.pack("<III", table.number, table.entry_size, table.names)
    return head + b"".join(rows), tuple(segments)
