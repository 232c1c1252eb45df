"""A unix socket that a client can connect to, one at a time."""

from __future__ import annotations

import socket
from pathlib import Path

from cpufw.chardev.backlog import ClientChardev
from cpufw.chardev.loop import POLLIN, POLLOUT, EventLoop
from cpufw.chardev.unix_socket import UnixListener

_CHUNK = 4096


class UnixChardev(ClientChardev):
    """`unix:PATH`: the socket listens at once; who comes second waits until the first has left.

    A socket file that is there already is replaced if nobody listens at it. Raises `ChardevError`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(f"unix:{path}")
        self._listening = UnixListener(path, 1)
        self._listener = self._listening.socket
        self._client: socket.socket | None = None
        self._reads = True
        self._input_ended = False
        self._writes = False
        self._hung_up = False
        self._closed = False

    def start(self, loop: EventLoop) -> None:
        """Begin to let clients in."""
        super().start(loop)
        loop.watch(self._listener.fileno(), POLLIN, self._on_connection)

    @property
    def connected(self) -> bool:
        """Whether a client is there."""
        return self._client is not None

    def _client_fd(self) -> int | None:
        return self._client.fileno() if self._client is not None else None

    def _on_connection(self, _revents: int) -> None:
        assert self._loop is not None
        try:
            client, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        client.setblocking(False)
        self._loop.unwatch(self._listener.fileno())
        self._input_ended = self._writes = self._hung_up = False
        with self._lock:
            self._client = client
        self._watch_client()

    def _watch_client(self) -> None:
        if (
            self._loop is not None
            and self._client is not None
            and (self._reads or not self._hung_up)
        ):
            reads = self._reads and not self._input_ended
            events = (POLLIN if reads else 0) | (POLLOUT if self._writes else 0)
            self._loop.watch(self._client.fileno(), events, self._on_client)

    def _want_writable(self) -> None:
        self._writes = True
        if self._loop is not None:
            self._loop.call_soon(self._watch_client)

    def _on_client(self, revents: int) -> None:
        if revents & POLLOUT and self._writes:
            self._writes = False
            self._flush()
        if revents & POLLIN:
            self._read()
        elif revents & ~POLLOUT:
            if self._reads:
                self._disconnect()
            else:  # there may be input of it that the guest has no room for yet
                self._hung_up = True
                assert self._loop is not None
                self._loop.unwatch(self._client_fd() or 0)
        self._watch_client()

    def _read(self) -> None:
        assert self._client is not None
        try:
            data = self._client.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._disconnect()
            return
        if data:
            self._deliver(data)
        else:  # it sends no more; POLLHUP tells when it is gone
            self._input_ended = True

    def _read_on(self, on: bool) -> None:
        if on is not self._reads:
            self._reads = on
            self._watch_client()

    def _on_lost(self) -> None:
        if self._loop is not None:
            self._loop.call_soon(self._disconnect)

    def _disconnect(self) -> None:
        with self._lock:
            client, self._client = self._client, None
            self.dropped += len(self._backlog)
            self._backlog.clear()
        if client is not None and self._loop is not None:
            self._loop.unwatch(client.fileno())
            client.close()
            self._loop.watch(self._listener.fileno(), POLLIN, self._on_connection)

    def close(self) -> None:
        """Let the client go and remove the socket file."""
        super().close()
        if self._closed:
            return
        self._closed = True
        if self._client is not None:
            self._client.close()
            self._client = None
        self._listening.close()
