"""Memory that a guest can be given."""

from __future__ import annotations

import mmap
import os
import threading
from typing import NamedTuple

from cpufw.errors import KvmError, UsageError

from .handle import Closing
from .native import ffi, lib

_HUGE_PAGE = 2 << 20  # MFD_HUGE_2MB
_PAGE: int = lib.CPUFW_PAGE  # of the dirty log and of saved memory


class MemoryBackend(NamedTuple):
    """Where a guest's memory comes from.

    `memfd`: a file without a name, which another process can be given; `share`: what is written
    goes into that file, else stays in this process; `hugetlb`: pages of 2 MiB from the host's pool
    (only with `memfd`); `prealloc`: all of it at the start.
    """

    memfd: bool = False
    share: bool = False
    hugetlb: bool = False
    prealloc: bool = False

    @classmethod
    def parse(cls, text: str) -> MemoryBackend:
        """`anonymous` or `memfd`, then `,share=on`, `,hugetlb=on`, `,prealloc=on`.

        Raises `UsageError`.
        """
        kind, *settings = text.split(",")
        if kind not in ("anonymous", "memfd"):
            raise UsageError(f"memory backend '{kind}' is not anonymous or memfd")
        values = {"memfd": kind == "memfd"}
        for setting in settings:
            name, _, value = setting.partition("=")
            if name not in ("share", "hugetlb", "prealloc") or value not in ("on", "off"):
                raise UsageError(
                    f"memory backend: '{setting}' is not share=, hugetlb= or prealloc= on or off"
                )
            values[name] = value == "on"
        backend = cls(**values)
        if backend.hugetlb and not backend.memfd:
            raise UsageError("memory backend: hugetlb=on needs memfd")
        return backend


class GuestMemory(Closing):
    """`size` bytes of zeroed memory; pages take up room when first written.

    Offsets count from the start of this memory, whatever guest-physical address it is put at.
    `fd` is the file of a memfd, -1 without one. Raises `KvmError` if the host has not so much.
    """

    def __init__(self, size: int, backend: MemoryBackend | None = None) -> None:
        backend = backend or MemoryBackend()
        page = _HUGE_PAGE if backend.hugetlb else mmap.PAGESIZE
        if size <= 0 or size % page:
            raise KvmError(
                f"guest memory of {size:#x} bytes: the size must be a positive multiple of "
                f"the page size, {page:#x}"
            )
        self.fd = -1
        flags = mmap.MAP_SHARED if backend.share else mmap.MAP_PRIVATE
        if not backend.hugetlb:  # where the pool's pages are reserved, running out of them is told
            flags |= lib.MAP_NORESERVE
        if backend.prealloc:
            flags |= mmap.MAP_POPULATE
        try:
            if backend.memfd:
                huge = os.MFD_HUGETLB | os.MFD_HUGE_2MB if backend.hugetlb else 0
                self.fd = os.memfd_create("guest-memory", os.MFD_CLOEXEC | huge)
                os.ftruncate(self.fd, size)
            else:
                flags |= mmap.MAP_ANONYMOUS
            self._map = mmap.mmap(self.fd, size, flags=flags)
        except (OSError, OverflowError) as error:
            self._close_file()
            pages = " in 2 MiB pages (see /proc/sys/vm/nr_hugepages)" if backend.hugetlb else ""
            raise KvmError(
                f"cannot reserve {size:#x} bytes of guest memory{pages}: {error}"
            ) from error
        self.size = size
        self._written: set[int] | None = None
        self._written_lock = threading.Lock()
        self.host_address = int(ffi.cast("uintptr_t", ffi.from_buffer(self._map)))
        """Where it begins in this process."""

    def _close_file(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def read(self, offset: int, length: int) -> bytes:
        """Copy `length` bytes out; KvmError when they are not all inside."""
        self._check(offset, length)
        return self._map[offset : offset + length]

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Copy `data` in; KvmError, and nothing written, when it does not fit inside."""
        length = memoryview(data).nbytes
        self._check(offset, length)
        self._map[offset : offset + length] = bytes(data)
        self.note_written(offset, length)

    def note_written(self, offset: int, length: int) -> None:
        """After a write through `memoryview`: what `log_writes` would not know of otherwise."""
        written = self._written
        if written is not None:
            with self._written_lock:
                written.update(range(offset // _PAGE, (offset + length - 1) // _PAGE + 1))

    def pack_pages(self, offset: int, count: int, wanted: bytes) -> tuple[bytes, bytes]:
        """Those of `count` pages from `offset` on that the bitmap `wanted` has.

        Returns the bitmap of those that are not all zeros, and their contents one after the
        other. Bit i of byte i / 8 of a bitmap, least significant first, is page i.
        """
        self._check(offset, count * _PAGE)
        self._check_bitmap(wanted, count)
        filled = ffi.new("uint8_t[]", len(wanted))
        out = bytearray(count * _PAGE)
        memory = ffi.cast("uint8_t *", self.host_address + offset)
        packed = lib.cpufw_pack_pages(memory, count, wanted, filled, ffi.from_buffer(out))
        return bytes(ffi.buffer(filled)), bytes(memoryview(out)[: packed * _PAGE])

    def is_untouched(self, offset: int, count: int, page_map: int) -> bool:
        """Whether `count` pages from `offset` on were never used, and so are zeros without a look.

        `page_map` is /proc/self/pagemap, opened. False for memory of a file, which others may
        have written to (Linux, Documentation/admin-guide/mm/pagemap.rst).
        """
        self._check(offset, count * _PAGE)
        if self.fd >= 0:
            return False
        entries = os.pread(page_map, count * 8, (self.host_address + offset) // _PAGE * 8)
        # Present or swapped out are the two uppermost bits of each.
        return len(entries) == count * 8 and not any(entries[7::8])

    def unpack_pages(
        self, offset: int, count: int, wanted: bytes, filled: bytes, data: bytes
    ) -> None:
        """Undo `pack_pages`: of the `wanted` pages those not in `filled` become zeros."""
        self._check(offset, count * _PAGE)
        self._check_bitmap(wanted, count)
        self._check_bitmap(filled, count)
        if len(data) != int.from_bytes(filled, "little").bit_count() * _PAGE:
            raise KvmError(f"{len(data)} bytes of guest memory are not the pages announced")
        memory = ffi.cast("uint8_t *", self.host_address + offset)
        lib.cpufw_unpack_pages(memory, count, wanted, filled, data)

    @staticmethod
    def _check_bitmap(bitmap: bytes, count: int) -> None:
        if len(bitmap) != (count + 7) // 8:
            raise KvmError(f"a bitmap of {len(bitmap)} bytes for {count} pages")

    def log_writes(self, on: bool) -> None:
        """From now on note which pages `write` and `note_written` name, or no longer."""
        self._written = set() if on else None

    def take_written(self) -> bytes:
        """The bitmap of the pages noted since it was last taken."""
        bitmap = bytearray((self.size // _PAGE + 7) // 8)
        with self._written_lock:
            for page in self._written or ():
                bitmap[page // 8] |= 1 << page % 8
            if self._written:
                self._written.clear()
        return bytes(bitmap)

    def memoryview(self) -> memoryview:
        """All of it, writable and shared with the guest; release it before `close`."""
        self._check(0, 0)
        return memoryview(self._map)

    def close(self) -> None:
        """Unmap it; does nothing the second time. A guest that still touches it gets EFAULT.

        Raises KvmError while a memoryview of it is in use.
        """
        try:
            self._map.close()
        except BufferError as error:
            raise KvmError("guest memory cannot be closed: a memoryview of it is in use") from error
        self._close_file()

    def _check(self, offset: int, length: int) -> None:
        if self._map.closed:
            raise KvmError("guest memory is closed")
        if offset < 0 or length < 0 or offset + length > self.size:
            raise KvmError(
                f"{length:#x} bytes at {offset:#x} are not inside guest memory of {self.size:#x}"
            )

    def __len__(self) -> int:
        return self.size
