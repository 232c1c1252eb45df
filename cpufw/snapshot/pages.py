"""Guest memory in the stream: up to 1 MiB a record, pages of zeros by one bit each.

u64 guest-physical address of the first page, u32 number of pages from there on,
a bitmap of the pages that are in the record, a bitmap of those of them that are not all
zeros (bit i of byte i / 8, least significant first), then those pages
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from cpufw.errors import StateError

PAGE = 4096
MOST_PAGES = 256

_HEADER = struct.Struct("<QI")


class Pages(NamedTuple):
    """`number` pages from guest-physical `address` on, of which `sent` says which are here.

    `filled` says which of those are in `data`; the others are zeros.
    """

    address: int
    number: int
    sent: bytes
    filled: bytes
    data: bytes


def bitmap_bytes(count: int) -> int:
    """How long a bitmap of `count` pages is."""
    return (count + 7) // 8


def all_pages(count: int) -> bytes:
    """The bitmap with all of `count` pages."""
    return ((1 << count) - 1).to_bytes(bitmap_bytes(count), "little")


def encode(pages: Pages) -> bytes:
    """The content of a record."""
    header = _HEADER.pack(pages.address, pages.number)
    return b"".join((header, pages.sent, pages.filled, pages.data))


def decode(content: bytes, where: str) -> Pages:
    """The pages of a record. Raises `StateError` if it has not that form."""
    if len(content) < _HEADER.size:
        raise StateError(f"{where} has no pages")
    address, count = _HEADER.unpack_from(content)
    if address % PAGE or not 0 < count <= MOST_PAGES:
        raise StateError(f"{where} has {count} pages at {address:#x}")
    size = bitmap_bytes(count)
    start = _HEADER.size
    sent, filled = content[start : start + size], content[start + size : start + 2 * size]
    data = content[start + 2 * size :]
    is_subset = not int.from_bytes(filled, "little") & ~int.from_bytes(sent, "little")
    in_range = int.from_bytes(sent, "little") < 1 << count
    if not is_subset or not in_range or len(data) != PAGE * bit_count(filled):
        raise StateError(f"{where} does not have the pages that it says")
    return Pages(address, count, sent, filled, data)


def bit_count(bitmap: bytes) -> int:
    """How many pages are in a bitmap."""
    return int.from_bytes(bitmap, "little").bit_count()
