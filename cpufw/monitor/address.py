"""Where a monitor listens: `unix:PATH[,server=on,wait=off]`, `tcp:HOST:PORT[,…]`, `fd=N`."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cpufw.errors import ChardevError, UsageError

_BACKLOG = 8
_SWITCHES = {"server": "on", "wait": "off"}


@dataclass(frozen=True)
class MonitorAddress:
    """`path` of a unix socket, `host` and `port` of a TCP one, or `fd` of one that listens."""

    path: Path | None = None
    host: str = ""
    port: int = 0
    fd: int | None = None

    @classmethod
    def parse(cls, text: str) -> MonitorAddress:
        """Raises `UsageError`."""
        where, *switches = text.split(",")
        for switch in switches:
            name, equals, value = switch.partition("=")
            if name not in _SWITCHES or (equals and value != _SWITCHES[name]):
                raise UsageError(
                    f"--qmp: '{switch}' is not supported, expected server=on and wait=off"
                )
        kind, _, rest = where.partition(":")
        if kind == "unix" and rest:
            return cls(path=Path(rest))
        if kind == "tcp":
            host, _, port = rest.rpartition(":")
            if port.isdecimal() and int(port) < 1 << 16:
                return cls(host=host.strip("[]") or "127.0.0.1", port=int(port))
        if where.startswith("fd=") and where[3:].isdecimal():
            return cls(fd=int(where[3:]))
        raise UsageError(
            f"--qmp: '{where}' is not an address, expected unix:PATH, tcp:HOST:PORT or fd=N"
        )

    def listen(self) -> socket.socket:
        """The listening socket. Raises `ChardevError`."""
        try:
            if self.fd is not None:
                return socket.socket(fileno=os.dup(self.fd))
            if self.path is not None:
                return self._listen_unix(self.path)
            return socket.create_server((self.host, self.port), backlog=_BACKLOG)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ChardevError(f"no monitor can be made at {self}: {reason}") from None

    def _listen_unix(self, path: Path) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        try:
            before = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    def remove(self) -> None:
        """Take the socket's file away."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"fd={self.fd}" if self.fd is not None else f"tcp:{self.host}:{self.port}"
