"""Output to somebody who comes, goes, and may be slow."""

from __future__ import annotations

import os
import threading

from cpufw.chardev.chardev import Chardev

BACKLOG = 1 << 20
"""Bytes kept for a client that does not read; then the oldest are dropped."""


class ClientChardev(Chardev):
    """A chardev that never makes the guest wait.

    Output while nobody is connected is dropped. A client that does not read in time finds the
    last `BACKLOG` bytes.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.dropped = 0
        """Bytes of output that nobody got."""
        self._backlog = bytearray()
        self._lock = threading.Lock()

    def _client_fd(self) -> int | None:
        """Whom to write to, a descriptor that does not block; None: nobody is there."""
        raise NotImplementedError

    def _want_writable(self) -> None:
        """Have `_flush` called, on the loop's thread, when the client takes more."""
        raise NotImplementedError

    def _on_lost(self) -> None:
        """The client is gone; any thread."""

    def write(self, data: bytes) -> int:
        """Take it all; send what can be sent now."""
        with self._lock:
            if self._client_fd() is None:
                self.dropped += len(data) + len(self._backlog)
                self._backlog.clear()
                return len(data)
            waiting = bool(self._backlog)
            self._backlog += data
            excess = len(self._backlog) - BACKLOG
            if excess > 0:
                self.dropped += excess
                del self._backlog[:excess]
        if not waiting:
            self._flush()
        return len(data)

    def _flush(self) -> None:
        lost = False
        with self._lock:
            fd = self._client_fd()
            while self._backlog and fd is not None:
                try:
                    del self._backlog[: os.write(fd, self._backlog)]
                except BlockingIOError:
                    self._want_writable()
                    break
                except OSError:
                    self.dropped += len(self._backlog)
                    self._backlog.clear()
                    lost = True
        if lost:
            self._on_lost()
