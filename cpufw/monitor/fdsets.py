"""Sets of file descriptors that clients hand over, for paths `/dev/fdset/N`."""

from __future__ import annotations

import fcntl
import os
import threading
from dataclasses import dataclass

from cpufw.monitor.errors import QmpError

_PREFIX = "/dev/fdset/"


@dataclass(frozen=True)
class FdsetFd:
    """A file descriptor of a set, and what the client wrote on it."""

    fd: int
    opaque: str | None


class FdSets:
    """The sets of one monitor, by number. Its methods may be called by any thread."""

    def __init__(self) -> None:
        self._sets: dict[int, list[FdsetFd]] = {}
        self._lock = threading.Lock()

    def add(self, fd: int, fdset: int | None, opaque: str | None) -> int:
        """Take `fd` into the set `fdset`, or a new one of the lowest free number; which."""
        if fdset is not None and fdset < 0:
            raise QmpError("Parameter 'fdset-id' expects a non-negative value")
        with self._lock:
            if fdset is None:
                fdset = next(number for number in range(len(self._sets) + 1)
                             if number not in self._sets)  # fmt: skip
            self._sets.setdefault(fdset, []).append(FdsetFd(fd, opaque))
            return fdset

    def remove(self, fdset: int, fd: int | None) -> None:
        """Close one file descriptor of a set, or all. Raises `QmpError` if it is not there."""
        with self._lock:
            held = self._sets.get(fdset, [])
            gone = [each for each in held if fd in (None, each.fd)]
            if not gone:
                which = f"fdset-id:{fdset}" + (f", fd:{fd}" if fd is not None else "")
                raise QmpError(f"File descriptor named '{which}' not found")
            for each in gone:
                held.remove(each)
                os.close(each.fd)
            if not held:
                del self._sets[fdset]

    def all(self) -> dict[int, list[FdsetFd]]:
        """Every set, highest number first."""
        with self._lock:
            return {number: list(held) for number, held in sorted(self._sets.items(), reverse=True)}

    def open(self, path: str, flags: int) -> int:
        """Open `path` as os.open does; `/dev/fdset/N` is a duplicate of a descriptor in set N.

        It is the first of the set that is open for what `flags` want. Raises `OSError`, or
        `QmpError` where a set has none such.
        """
        if not path.startswith(_PREFIX):
            return os.open(path, flags | os.O_CLOEXEC, 0o600)
        number = path.removeprefix(_PREFIX)
        with self._lock:
            held = self._sets.get(int(number), []) if number.isdecimal() else []
            for each in held:
                mode = fcntl.fcntl(each.fd, fcntl.F_GETFL) & os.O_ACCMODE
                if mode == flags & os.O_ACCMODE:
                    return os.dup(each.fd)
        raise QmpError(f"{path}: no file descriptor of that set is open for this: use add-fd first")

    def close(self) -> None:
        """Close all file descriptors."""
        with self._lock:
            for held in self._sets.values():
                for each in held:
                    os.close(each.fd)
            self._sets.clear()
