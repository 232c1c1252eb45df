"""Where QMP clients connect: sockets of a thread of its own, with an asyncio loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import cpufw.monitor.commands  # noqa: F401 - fills the table of commands
from cpufw.monitor.greeter import Greeter
from cpufw.monitor.session import Session

if TYPE_CHECKING:
    from cpufw.monitor.address import MonitorAddress
    from cpufw.monitor.monitor import Monitor

MOST_CLIENTS = 32
"""How many are served; who comes then waits until one has left."""
CONGESTED = 1 << 20
"""From so many unread bytes on, a client gets no more replies until it has read some."""
MOST_UNREAD = 8 << 20
"""A client that leaves more unread is dropped: events cannot wait."""

_CHUNK = 1 << 14  # short enough that its worst content does not keep other clients waiting
_MOST_FDS = 16  # in one message
_RETRY = 1.0  # seconds until clients are let in again when there were no file descriptors left


class QmpServer:
    """Serves QMP at `addresses` from `start` on until `close`.

    The sockets, `listeners`, listen as soon as the object is there, or are those of a `Greeter`,
    which it closes. Raises `ChardevError` for an address where no one can listen.
    """

    def __init__(self, monitor: Monitor, addresses: Sequence[MonitorAddress] | Greeter) -> None:
        self.monitor = monitor
        self._greeter = addresses if isinstance(addresses, Greeter) else Greeter(addresses)
        self.listeners = self._greeter.listeners
        self._clients: set[_Client] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._unsubscribe = monitor.subscribe(self._on_event)

    def start(self) -> None:
        """Let clients in."""
        self._thread.start()

    def close(self) -> None:
        """Send what is still to be sent, and let the clients go."""
        self._unsubscribe()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._greeter.close()
        self._loop.close()

    def _run(self) -> None:
        for connection in self._greeter.hand_over():
            self._admit(connection)
        self._let_in()
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)  # commands that are under way
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks))
        for client in tuple(self._clients):
            client.finish()

    def _let_in(self) -> None:
        for listener in self.listeners:
            self._loop.add_reader(listener.socket, self._accept, listener.socket)

    def _let_wait(self) -> None:
        for listener in self.listeners:
            self._loop.remove_reader(listener.socket)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):  # it has gone again
            return
        except OSError:
            self._let_wait()
            self._loop.call_later(_RETRY, self._let_in)
            return
        self._admit(connection).session.greet()
        if len(self._clients) >= MOST_CLIENTS:
            self._let_wait()

    def _admit(self, connection: socket.socket) -> _Client:
        client = _Client(self, connection, self._loop)
        self._clients.add(client)
        return client

    def _on_event(self, message: Mapping[str, Any]) -> None:
        if threading.get_ident() == self._thread.ident:
            self._broadcast(message, True)
            return
        of_command = self.monitor.on_worker
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._broadcast, message, of_command)

    def _broadcast(self, message: Mapping[str, Any], of_command: bool) -> None:
        for client in tuple(self._clients):
            client.session.on_event(message, of_command)

    def forget(self, client: _Client) -> None:
        """`client` has gone."""
        self._clients.discard(client)
        if self._loop.is_running():
            self._let_in()


class _Client:
    """A connected socket and its session."""

    def __init__(
        self, server: QmpServer, connection: socket.socket, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._server, self._socket, self._loop = server, connection, loop
        self._out: deque[bytes] = deque()
        self._unread = 0
        self._reads = False
        self.congested = False
        connection.setblocking(False)
        self.session = Session(server.monitor, self)
        self.read_on(True)

    def read_on(self, on: bool) -> None:
        """Whether to hand over what the client sends."""
        if on is self._reads or self._socket.fileno() < 0:
            return
        self._reads = on
        if on:
            self._loop.add_reader(self._socket, self._read)
        else:
            self._loop.remove_reader(self._socket)

    def _read(self) -> None:
        fds: list[int] = []
        try:
            if self._socket.family == socket.AF_UNIX:
                data, fds, _, _ = socket.recv_fds(
                    self._socket, _CHUNK, _MOST_FDS, socket.MSG_CMSG_CLOEXEC
                )
            else:
                data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.session.feed(data, fds)
        else:
            self._close()

    def write(self, data: bytes) -> None:
        """Send `data` when the client takes it."""
        if self._socket.fileno() < 0:
            return
        self._out.append(data)
        self._unread += len(data)
        if len(self._out) == 1:
            self._flush()
        if self._unread > MOST_UNREAD:
            self._close()
        self.congested = self._unread > CONGESTED

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._socket.send(self._out[0])
                self._unread -= sent
                if sent < len(self._out[0]):
                    self._out[0] = self._out[0][sent:]
                else:
                    self._out.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._on_writable)
            return
        except OSError:
            self._close()

    def _on_writable(self) -> None:
        self._flush()
        if not self._out and self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket)
        if self.congested and self._unread < CONGESTED // 2:
            self.congested = False
            self.session.serve()

    def finish(self) -> None:
        """Send what waits, if the client takes it soon, and let it go."""
        with suppress(OSError):
            self._socket.settimeout(1.0)
            self._socket.sendall(b"".join(self._out))
        self._close()

    def _close(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._out.clear()
        self._unread = 0
        self.session.close()
        self._server.forget(self)
