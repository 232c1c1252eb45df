"""A raw disk image: a regular file or a block device of the host."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable

from cpufw.errors import ImageError
from cpufw.virtio.device import split

SECTOR = 512
_STAT_BLOCK = 512  # st_blocks of stat(2)

# struct flock of a 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid; length 0 is all of it.
_FLOCK = struct.Struct("hhqqi4x")
_IOV_MAX = os.sysconf("SC_IOV_MAX")
_HELD_BY_ANOTHER = (errno.EAGAIN, errno.EACCES)


class RawImage:
    """The disk image at `path`, opened and locked.

    The lock is of the opened file (F_OFD_SETLK): any number may read an image, but who writes it
    has it alone, also against others of this process. Raises `ImageError` for a path that is no
    image, cannot be opened or is in use. `size` is in bytes, a multiple of 512; `is_device`: it is
    a block device.
    """

    _fd = -1

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path, self.read_only = path, read_only
        try:
            # O_NONBLOCK: opening a FIFO without a writer would wait for one.
            flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK
            self._fd = os.open(path, flags)
        except (OSError, ValueError) as error:
            raise ImageError(f"disk image {path} cannot be opened: {_why(error)}") from None
        try:
            self.size = self._measure()
            self._lock()
        except BaseException:
            self.close()
            raise

    def _measure(self) -> int:
        mode = os.fstat(self._fd).st_mode
        self.is_device = stat.S_ISBLK(mode)
        if not (stat.S_ISREG(mode) or self.is_device):
            raise ImageError(f"disk image {self.path} is neither a file nor a block device")
        try:
            size = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:  # some files of /proc
            raise ImageError(f"disk image {self.path} has no size: {_why(error)}") from None
        if not size or size % SECTOR:
            raise ImageError(
                f"disk image {self.path} has {size} bytes, expected a multiple of {SECTOR}: "
                f"truncate -s %{SECTOR} makes it one" + ("" if size else " once it has any")
            )
        return size

    def _lock(self) -> None:
        kind = fcntl.F_RDLCK if self.read_only else fcntl.F_WRLCK
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
        except OSError as error:
            if error.errno in _HELD_BY_ANOTHER:
                raise ImageError(
                    f"disk image {self.path} is in use by another guest: share it by giving it "
                    "to each with readonly=on, or make a copy"
                ) from None
            raise ImageError(
                f"disk image {self.path} cannot be locked: {_why(error)}; put it on a file "
                "system that has locks"
            ) from None

    @property
    def allocated(self) -> int:
        """Bytes that it takes of the host's disk, fewer than `size` where it has holes."""
        return os.fstat(self._fd).st_blocks * _STAT_BLOCK

    def read(self, parts: list[memoryview], offset: int) -> None:
        """Fill `parts` from `offset` on. Raises OSError, also where the image ends before."""
        self._all(os.preadv, parts, offset)

    def write(self, parts: list[memoryview], offset: int) -> None:
        """Write `parts` from `offset` on. Raises OSError."""
        self._all(os.pwritev, parts, offset)

    def _all(
        self,
        call: Callable[[int, list[memoryview], int], int],
        parts: list[memoryview],
        offset: int,
    ) -> None:
        parts = [part for part in parts if part]
        while parts:
            done = call(self._fd, parts[:_IOV_MAX], offset)
            if not done:
                raise OSError(errno.EIO, f"nothing is at {offset:#x}")
            offset += done
            _, parts = split(parts, done)

    def sync(self) -> None:
        """Wait until all that was written is on stable storage. Raises OSError."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Unlock and close it; does nothing the second time."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close  # a machine that could not be made must not keep the lock


def _why(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
