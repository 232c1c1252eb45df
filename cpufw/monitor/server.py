"""Where QMP clients connect: sockets of a thread of its own, with an asyncio loop."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import cpufw.monitor.commands  # noqa: F401 - fills the table of commands
from cpufw.monitor.session import Session

if TYPE_CHECKING:
    from cpufw.monitor.address import MonitorAddress
    from cpufw.monitor.monitor import Monitor

_CHUNK = 1 << 16
_MOST_FDS = 16  # in one message


class QmpServer:
    """Serves QMP at `addresses` from `start` on until `close`.

    The sockets listen as soon as the object is there. Raises `ChardevError` for one that cannot.
    """

    def __init__(self, monitor: Monitor, addresses: Sequence[MonitorAddress]) -> None:
        self.monitor = monitor
        self._listeners: list[socket.socket] = []
        self._addresses = addresses
        self._clients: set[_Client] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        try:
            for address in addresses:
                self._listeners.append(address.listen())
        except BaseException:
            self._close_listeners()
            self._loop.close()
            raise
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
        self._close_listeners()
        self._loop.close()

    def _close_listeners(self) -> None:
        for listener, address in zip(self._listeners, self._addresses, strict=False):
            listener.close()
            address.remove()

    def _run(self) -> None:
        for listener in self._listeners:
            listener.setblocking(False)
            self._loop.add_reader(listener, self._accept, listener)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)  # commands that are under way
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks))
        for client in tuple(self._clients):
            client.finish()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # it has gone again
            connection, _ = listener.accept()
            self._clients.add(_Client(self, connection))

    def _on_event(self, message: Mapping[str, Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._broadcast, message)

    def _broadcast(self, message: Mapping[str, Any]) -> None:
        for client in tuple(self._clients):
            client.session.on_event(message)

    def forget(self, client: _Client) -> None:
        """`client` has gone."""
        self._clients.discard(client)


class _Client:
    """A connected socket and its session."""

    def __init__(self, server: QmpServer, connection: socket.socket) -> None:
        self._server, self._socket, self._loop = server, connection, server._loop
        self._out: deque[bytes] = deque()
        connection.setblocking(False)
        self.session = Session(server.monitor, self._write)
        self._loop.add_reader(connection, self._read)
        self.session.greet()

    def _read(self) -> None:
        try:
            if self._socket.family == socket.AF_UNIX:
                data, fds, _, _ = socket.recv_fds(self._socket, _CHUNK, _MOST_FDS)
                self.session.received_fds.extend(fds)
            else:
                data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.session.feed(data)
        else:
            self._close()

    def _write(self, data: bytes) -> None:
        self._out.append(data)
        if len(self._out) == 1:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._socket.send(self._out[0])
                if sent < len(self._out[0]):
                    self._out[0] = self._out[0][sent:]
                else:
                    self._out.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._flush)
            return
        except OSError:
            self._close()
            return
        if self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket)

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
        self.session.close()
        for fd in (*self.session.received_fds, *self.session.fds.values()):
            os.close(fd)
        self._server.forget(self)
