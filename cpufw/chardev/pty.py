"""A pseudo-terminal that a terminal program can be connected to."""

from __future__ import annotations

import os
import select
import tty

from cpufw.chardev.backlog import ClientChardev
from cpufw.chardev.loop import POLLHUP, POLLIN, EventLoop
from cpufw.errors import ChardevError

_CHUNK = 4096


class PtyChardev(ClientChardev):
    """`pty`: `path` is the terminal, for example for `screen`; nobody need be connected.

    It is raw: nothing is echoed or translated on the way.
    """

    def __init__(self) -> None:
        try:
            self._master, slave = os.openpty()
        except OSError as error:
            raise ChardevError(f"there is no pseudo-terminal to be had: {error.strerror}") from None
        self.path = os.ttyname(slave)
        """`/dev/pts/N`."""
        tty.setraw(slave)
        os.close(slave)
        super().__init__(f"pty:{self.path}")
        os.set_blocking(self._master, False)
        # While nobody is connected poll(2) says so without end. Edge-triggered, it says it once,
        # and again as soon as somebody types or has read.
        self._edges = select.epoll()
        events = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET
        self._edges.register(self._master, events)
        self._reads = True
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether somebody has the terminal open."""
        if self._closed:
            return False
        poll = select.poll()
        poll.register(self._master, 0)
        return not any(revents & POLLHUP for _, revents in poll.poll(0))

    def start(self, loop: EventLoop) -> None:
        """Begin to read."""
        super().start(loop)
        loop.watch(self._edges.fileno(), POLLIN, self._on_edge)

    def _client_fd(self) -> int | None:
        return self._master if self.connected else None

    def _want_writable(self) -> None:
        """Every edge flushes."""

    def _on_edge(self, _revents: int) -> None:
        self._edges.poll(0)
        self._flush()
        self._read()

    def _read_on(self, on: bool) -> None:
        self._reads, was = on, self._reads
        if on and not was:
            self._read()

    def _read(self) -> None:
        while self._reads:
            try:
                data = os.read(self._master, _CHUNK)
            except OSError:  # nothing more, or nobody there
                return
            self._deliver(data)

    def close(self) -> None:
        """Take the terminal away."""
        super().close()
        if not self._closed:
            self._closed = True
            self._edges.close()
            os.close(self._master)
