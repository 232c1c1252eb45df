"""Unpacking LZ4's legacy format, which Linux kernels come in.

Sources: lz4, doc/lz4_Frame_format.md, "Legacy frame", and doc/lz4_Block_format.md.
"""

from __future__ import annotations

MAGIC = b"\x02\x21\x4c\x18"
_BLOCK = 8 << 20  # what each block but the last unpacks to
_SHORTEST_MATCH = 4
_MORE = 15  # a length that goes on in the next bytes


class Lz4LegacyDecompressor:
    """Used as zlib's decompression objects are; `eof` tells whether the data were whole."""

    eof = False

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """All of `data`, or OSError for damaged ones; stops after `max_length` bytes."""
        out = bytearray()
        at = len(MAGIC)
        while at + 4 < len(data) and len(out) <= max_length:
            size = int.from_bytes(data[at : at + 4], "little")
            at += 4
            if at + size > len(data):
                return bytes(out)
            try:
                _unpack_block(data, at, at + size, out)
            except IndexError:
                raise OSError("an LZ4 block is damaged") from None
            at += size
        self.eof = len(out) <= max_length
        return bytes(out)


def _unpack_block(data: bytes, at: int, end: int, out: bytearray) -> None:
    """Append what the block from `at` to `end` unpacks to."""
    start = len(out)
    while at < end:
        token = data[at]
        at += 1
        literals = token >> 4
        if literals == _MORE:
            literals, at = _longer(data, at, literals)
        out += data[at : at + literals]
        at += literals
        if at >= end:  # the last sequence has only literals
            break
        distance = data[at] | data[at + 1] << 8
        at += 2
        length = token & _MORE
        if length == _MORE:
            length, at = _longer(data, at, length)
        length += _SHORTEST_MATCH
        source = len(out) - distance
        if not distance or source < start or source + length > start + _BLOCK:
            raise IndexError
        if distance >= length:
            out += out[source : source + length]
        else:  # the match overlaps itself: a pattern that repeats
            out += (out[source:] * (length // distance + 1))[:length]
    if at != end or len(out) - start > _BLOCK:
        raise IndexError


def _longer(data: bytes, at: int, length: int) -> tuple[int, int]:
    """The length with the bytes that continue it, and the place after them."""
    while True:
        more = data[at]
        at += 1
        length += more
        if more != 255:
            return length, at
