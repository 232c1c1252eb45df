"""Unpacking the kernel in a bzImage.

Where ring 0 runs in an emulator, as on KVM's PVM back end, a kernel takes minutes to unpack itself.

Source: Linux, Documentation/x86/boot.rst, payload_offset and payload_length.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from cpufw.errors import ImageError
from cpufw_x86.boot import lz4
from cpufw_x86.boot.elf import is_elf
from cpufw_x86.boot.linux_header import parse_setup_header
from cpufw_x86.memory_map import MIB


class _Decompressor(Protocol):
    """What decompression objects have in common."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_LARGEST = 256 * MIB  # a kernel has some tens
# The magic numbers that the kernel's own unpacking goes by (Linux, lib/decompress.c).
_KNOWN: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16),  # gzip
    b"BZh": bz2.BZ2Decompressor,
    b"\x5d\0\0": lzma.LZMADecompressor,
    b"\xfd7zXZ\0": lzma.LZMADecompressor,
    lz4.MAGIC: lz4.Lz4LegacyDecompressor,
}
_UNKNOWN = {b"\x89LZO": "LZO", b"\x28\xb5\x2f\xfd": "Zstandard"}


def unpack_bzimage(content: bytes, name: str) -> bytes:
    """The ELF vmlinux in a bzImage. Raises `ImageError`."""
    payload = content[parse_setup_header(content, name).payload]
    for magic, kind in _UNKNOWN.items():
        if payload.startswith(magic):
            raise ImageError(
                f"{name} is compressed with {kind}, which cpufw cannot unpack: "
                "boot it as linux, or give its vmlinux"
            )
    for magic, decompressor in _KNOWN.items():
        if payload.startswith(magic):
            kernel = _decompress(decompressor(), payload, name)
            break
    else:
        kernel = payload
    if not is_elf(kernel):
        raise ImageError(f"{name} is a bzImage with no ELF kernel in it that could be unpacked")
    return kernel


def _decompress(decompressor: _Decompressor, payload: bytes, name: str) -> bytes:
    try:
        kernel = decompressor.decompress(payload, _LARGEST)
    except (zlib.error, lzma.LZMAError, OSError):
        raise ImageError(f"{name} has a compressed kernel that is damaged") from None
    except MemoryError:
        raise ImageError(f"{name} has a kernel larger than what this host can hold") from None
    if not decompressor.eof:
        what = "is cut short" if len(kernel) < _LARGEST else f"has more than {_LARGEST >> 20} MiB"
        raise ImageError(f"{name} has a compressed kernel that {what}")
    return kernel
