"""Writing to a descriptor that is not ours alone, without waiting and without changing it."""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable

from cpufw.chardev.loop import POLLOUT, EventLoop


class OutputFd:
    """Writes to what `fd` leads to: a file, a terminal, a pipe or a socket.

    O_NONBLOCK is not set on it: it would hold for every process that shares the open file, the
    shell for one.
    """

    def __init__(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        self._socket: socket.socket | None = None
        self._ask_first = stat.S_ISFIFO(mode)
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
            self._fd = self._socket.fileno()
        elif os.isatty(fd):
            try:  # a second open file of the same terminal, with flags of its own
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._fd = os.open(f"/proc/self/fd/{fd}", flags)
            except OSError:
                self._fd, self._ask_first = os.dup(fd), True
        else:
            self._fd = os.dup(fd)

    def write(self, data: bytes) -> int:
        """Write what can be written now; returns how many bytes. Raises OSError."""
        done = 0
        view = memoryview(data)
        while done < len(data):
            try:
                written = self._write(view[done:])
            except BlockingIOError:
                break
            if not written:
                break
            done += written
        return done

    def _write(self, data: memoryview) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._ask_first:
            poll = select.poll()
            poll.register(self._fd, POLLOUT)
            if not poll.poll(0):
                return 0
            data = data[: select.PIPE_BUF]  # so much a pipe that is ready takes without waiting
        return os.write(self._fd, data)

    def when_writable(self, loop: EventLoop, callback: Callable[[], None]) -> None:
        """Have `callback` called once, on the loop's thread, when `write` takes more."""
        fd = self._fd

        def ready(_revents: int) -> None:
            loop.unwatch(fd)
            callback()

        loop.call_soon(lambda: loop.watch(fd, POLLOUT, ready))

    def close(self) -> None:
        """Close what was opened here, not the descriptor it was made from."""
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._fd)
