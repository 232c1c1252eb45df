"""Memory that a guest can be given."""

from __future__ import annotations

import mmap

from cpufw.errors import KvmError

from .handle import Closing
from .native import ffi, lib


class GuestMemory(Closing):
    """`size` bytes of zeroed anonymous memory; pages take up room when first written.

    Offsets count from the start of this memory, whatever guest-physical address it is put at.
    """

    def __init__(self, size: int) -> None:
        if size <= 0 or size % mmap.PAGESIZE:
            raise KvmError(
                f"guest memory of {size:#x} bytes: the size must be a positive multiple of "
                f"the page size, {mmap.PAGESIZE:#x}"
            )
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | lib.MAP_NORESERVE
        try:
            self._map = mmap.mmap(-1, size, flags=flags)
        except (OSError, OverflowError) as error:
            raise KvmError(f"cannot reserve {size:#x} bytes of guest memory: {error}") from error
        self.size = size
        self.host_address = int(ffi.cast("uintptr_t", ffi.from_buffer(self._map)))
        """Where it begins in this process."""

    def read(self, offset: int, length: int) -> bytes:
        """Copy `length` bytes out; KvmError when they are not all inside."""
        self._check(offset, length)
        return self._map[offset : offset + length]

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Copy `data` in; KvmError, and nothing written, when it does not fit inside."""
        length = memoryview(data).nbytes
        self._check(offset, length)
        self._map[offset : offset + length] = bytes(data)

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

    def _check(self, offset: int, length: int) -> None:
        if self._map.closed:
            raise KvmError("guest memory is closed")
        if offset < 0 or length < 0 or offset + length > self.size:
            raise KvmError(
                f"{length:#x} bytes at {offset:#x} are not inside guest memory of {self.size:#x}"
            )

    def __len__(self) -> int:
        return self.size
