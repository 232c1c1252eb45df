"""The stream that snapshots and migrations have in common: records, each with its checksums.

    preamble  8 bytes b"CPUFWSAV", u32 version of this layout, u32 CRC-32 of those 12 bytes
    record    u8 kind, u8 encoding of the content (0 plain, 1 zstd), u16 length of the name,
              u32 length of the content, u32 CRC-32 of the content,
              u32 CRC-32 of the 12 bytes before and of the name; name (UTF-8); content
    ...
    END       a record whose content is a u64: how many records come before it

Numbers are little-endian. CRC-32 is that of zlib, over the content as it stands in the stream.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from cpufw.errors import StateError

MAGIC = b"CPUFWSAV"
LAYOUT = 1

_PREAMBLE = struct.Struct("<8sI")
_CHECKSUM = struct.Struct("<I")
_HEADER = struct.Struct("<BBHII")
_COUNT = struct.Struct("<Q")
_PLAIN, _ZSTD = 0, 1
_SMALL = 4096
_LONGEST_CONTENT = 64 << 20
"""More than any record has: a damaged length must not cost all the memory."""


class Kind(enum.IntEnum):
    """What a record holds."""

    STATE = 1
    """The state of the thing that the record is named after (see `encoding`)."""
    PAGES = 2
    """Pages of guest memory (see `pages`)."""
    SIGNAL = 3
    """A word between the two sides of a migration."""
    END = 4


class Record(NamedTuple):
    """One record; `content` is as it was written, whatever the encoding."""

    kind: Kind
    name: str
    content: bytes


class StreamWriter:
    """Writes a stream by calling `write` with pieces of it. Raises what `write` raises.

    With `compress` contents that get smaller by it are stored as zstd; raises `StateError` if the
    package zstandard is not there. `count` and `bytes` are what has been written.
    """

    def __init__(self, write: Callable[[bytes], object], *, compress: bool = False) -> None:
        self._write = write
        self._compressor = _zstd().ZstdCompressor(level=1) if compress else None
        self.count = 0
        preamble = _PREAMBLE.pack(MAGIC, LAYOUT)
        self._write(preamble + _CHECKSUM.pack(zlib.crc32(preamble)))
        self.bytes = _PREAMBLE.size + _CHECKSUM.size

    def record(self, kind: Kind, name: str, content: bytes) -> None:
        """Write a record."""
        encoding = _PLAIN
        if self._compressor is not None and len(content) > _HEADER.size:
            packed = self._compressor.compress(content)
            if len(packed) < len(content):
                content, encoding = packed, _ZSTD
        label = name.encode()
        header = _HEADER.pack(kind, encoding, len(label), len(content), zlib.crc32(content))
        front = header + _CHECKSUM.pack(zlib.crc32(header + label)) + label
        if len(content) < _SMALL:  # in one piece: on a socket it is there in full or never
            self._write(front + content)
        else:
            self._write(front)
            self._write(content)
        self.count += 1
        self.bytes += _HEADER.size + _CHECKSUM.size + len(label) + len(content)

    def end(self) -> None:
        """Write that this is all."""
        self.record(Kind.END, "", _COUNT.pack(self.count))


class StreamReader:
    """Reads a stream through `read(n)`, which returns n bytes, fewer only where the stream ends.

    `source` names it in errors. Raises `StateError` for what is no such stream, is of a later
    layout, is cut short, or does not fit its checksums.
    """

    def __init__(self, read: Callable[[int], bytes], source: str) -> None:
        self._read, self.source = read, source
        self._count = 0
        self._ended = False
        preamble = read(_PREAMBLE.size)
        if preamble[: len(MAGIC)] != MAGIC:
            raise StateError(f"{source} is not a saved machine of cpufw")
        checksum = self._exactly(_CHECKSUM.size, "its preamble") if len(preamble) == 12 else b""
        if _CHECKSUM.pack(zlib.crc32(preamble)) != checksum:
            raise StateError(f"{source} is damaged in its preamble: the checksum does not fit")
        layout = _PREAMBLE.unpack(preamble)[1]
        if layout > LAYOUT:
            raise StateError(
                f"{source} has layout {layout}, this cpufw reads up to {LAYOUT}: "
                "load it with a newer cpufw"
            )

    def next(self) -> Record:
        """The next record, which for the stream's end is the record END."""
        where = f"the header of record {self._count + 1}"
        header = self._exactly(_HEADER.size, where)
        checksum = self._exactly(_CHECKSUM.size, where)
        number, encoding, name_length, length, content_checksum = _HEADER.unpack(header)
        label = self._exactly(name_length, where) if name_length <= 255 else b""
        if _CHECKSUM.pack(zlib.crc32(header + label)) != checksum:
            raise StateError(f"{self.source} is damaged in {where}: the checksum does not fit")
        name = label.decode(errors="replace")
        where = f"record {self._count + 1} ({name or 'the end'})"
        if number not in list(Kind) or encoding not in (_PLAIN, _ZSTD) or length > _LONGEST_CONTENT:
            raise StateError(
                f"{self.source}: {where} is of a kind that this cpufw does not know: "
                "load it with a newer cpufw"
            )
        content = self._exactly(length, where)
        if zlib.crc32(content) != content_checksum:
            raise StateError(f"{self.source} is damaged in {where}: the checksum does not fit")
        if encoding == _ZSTD:
            content = self._unpacked(content, where)
        kind = Kind(number)
        if kind is Kind.END:
            self._check_end(content)
        self._count += 1
        return Record(kind, name, content)

    def __iter__(self) -> Iterator[Record]:
        """The records up to the end, which must be there and be all."""
        while (record := self.next()).kind is not Kind.END:
            yield record

    def check_nothing_follows(self) -> None:
        """Raise `StateError` if there is more after the end."""
        if self._read(1):
            raise StateError(f"{self.source} is damaged: something follows its end")

    def _check_end(self, content: bytes) -> None:
        if len(content) != _COUNT.size or _COUNT.unpack(content)[0] != self._count:
            raise StateError(f"{self.source} is damaged: records of it are missing")

    def _unpacked(self, content: bytes, where: str) -> bytes:
        zstd = _zstd()
        try:
            size = zstd.frame_content_size(content)
            if not 0 <= size <= _LONGEST_CONTENT:
                raise StateError(f"{self.source} is damaged in {where}: {size} bytes in it")
            unpacked: bytes = zstd.ZstdDecompressor().decompress(content)
        except zstd.ZstdError as error:
            raise StateError(f"{self.source} is damaged in {where}: {error}") from None
        return unpacked

    def _exactly(self, size: int, where: str) -> bytes:
        data = self._read(size)
        if len(data) < size:
            raise StateError(f"{self.source} is cut short in {where}")
        return data


def _zstd() -> ModuleType:
    try:
        return import_module("zstandard")
    except ImportError:
        raise StateError(
            "zstd needs the Python package zstandard: pip install 'cpufw[zstd]', "
            "or save without compression"
        ) from None
