"""Character devices over one descriptor each way: open ones, and files."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from cpufw.chardev.chardev import Chardev
from cpufw.chardev.loop import POLLIN, EventLoop
from cpufw.chardev.output import OutputFd
from cpufw.errors import ChardevError

_CHUNK = 4096  # a pipe's or a terminal's buffer, in bytes


class FdChardev(Chardev):
    """Reads from `input_fd` and writes to `output_fd`, where given; they stay the caller's.

    The end of the input is not the end of anything: no more comes. A reader that is slow slows
    the guest down, and nothing is lost.
    """

    def __init__(self, name: str, input_fd: int | None, output_fd: int | None) -> None:
        super().__init__(name)
        self._input_fd = input_fd
        self._output = OutputFd(output_fd) if output_fd is not None else None

    def start(self, loop: EventLoop) -> None:
        """Begin to read."""
        super().start(loop)
        if self._input_fd is not None:
            loop.call_soon(self._offer)

    def _read_on(self, on: bool) -> None:
        if self._loop is None or self._input_fd is None:
            return
        if on:
            self._loop.watch(self._input_fd, POLLIN, self._on_readable)
        else:
            self._loop.unwatch(self._input_fd)

    def _on_readable(self, _revents: int) -> None:
        assert self._input_fd is not None
        assert self._loop is not None
        try:
            data = os.read(self._input_fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # a terminal whose other end is gone
            data = b""
        if data:
            self._deliver(*self._input_from(data))
        else:
            self._loop.unwatch(self._input_fd)
            self._input_fd = None

    def _input_from(self, data: bytes) -> list[bytes | None]:
        """What the guest gets of what was read."""
        return [data]

    def write(self, data: bytes) -> int:
        """Write what can be written now."""
        if self._output is None:
            return len(data)
        done = self._output.write(data)
        if done < len(data) and self._loop is not None:
            self._output.when_writable(self._loop, self.on_writable)
        return done

    def close(self) -> None:
        """Let go of the descriptors."""
        super().close()
        if self._output is not None:
            self._output.close()
            self._output = None


def open_fd(number: int) -> FdChardev:
    """`fd:N`: a descriptor that cpufw was started with. Raises `ChardevError`."""
    try:
        mode = os.fstat(number).st_mode
        access = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, OverflowError):
        raise ChardevError(f"fd:{number}: no file is open with this number") from None
    if stat.S_ISDIR(mode):
        raise ChardevError(f"fd:{number} is a directory, expected a file, a pipe or a socket")
    reads = access != os.O_WRONLY and not stat.S_ISREG(mode)
    writes = access != os.O_RDONLY
    return FdChardev(f"fd:{number}", number if reads else None, number if writes else None)


class FileChardev(FdChardev):
    """`file:PATH`: output only, into a file that is made or emptied, or with `append` continued."""

    def __init__(self, path: Path, *, append: bool = False) -> None:
        self._path = path
        try:
            file = path.open("ab" if append else "wb", buffering=0)
        except OSError as error:
            raise ChardevError(f"{path} cannot be opened: {error.strerror}") from None
        with file:
            super().__init__(f"file:{path}", None, file.fileno())

    def write(self, data: bytes) -> int:
        """Write it; `ChardevError` names the file."""
        try:
            return super().write(data)
        except OSError as error:
            raise ChardevError(f"{self._path} cannot be written: {error.strerror}") from None
