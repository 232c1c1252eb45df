"""Listens and greets QMP clients while the machine is still being built."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from cpufw.monitor.version import GREETING

if TYPE_CHECKING:
    from cpufw.monitor.address import Listener, MonitorAddress

_MOST = 32  # clients; who comes then is greeted later


class Greeter:
    """Listens at `addresses` at once; a thread greets who comes until `hand_over`.

    What clients send stays in their sockets. Raises `ChardevError` for an address where no one can
    listen.
    """

    def __init__(self, addresses: Sequence[MonitorAddress]) -> None:
        self.listeners: list[Listener] = []
        self._clients: list[socket.socket] = []
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="monitor-greeter", daemon=True)
        try:
            for address in addresses:
                self.listeners.append(address.listen())
        except BaseException:
            self.close()
            raise
        self._thread.start()

    def hand_over(self) -> list[socket.socket]:
        """Greet nobody any more; the clients that are there belong to the caller."""
        if self._thread.is_alive():
            self._wake.close()
            self._thread.join()
        clients, self._clients = self._clients, []
        return clients

    def close(self) -> None:
        """Let clients go that were not handed over, and listen no more."""
        for client in self.hand_over():
            client.close()
        for listener in self.listeners:
            listener.close()
        self.listeners = []
        self._wake.close()
        self._woken.close()

    def _run(self) -> None:
        greeting = json.dumps(GREETING).encode() + b"\r\n"
        sockets = {listener.socket.fileno(): listener.socket for listener in self.listeners}
        poll = select.poll()
        for fd in (*sockets, self._woken.fileno()):
            poll.register(fd, select.POLLIN)
        while len(self._clients) < _MOST:
            for fd, _ in poll.poll():
                if fd not in sockets:
                    return
                with suppress(OSError):  # it has gone again
                    client, _ = sockets[fd].accept()
                    self._clients.append(client)
                    client.send(greeting)
