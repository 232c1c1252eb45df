"""Where a monitor listens: `unix:PATH`, `tcp:HOST:PORT` or `fd=N`, and options behind commas."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cpufw.chardev.unix_socket import UnixListener
from cpufw.errors import ChardevError, UsageError

_BACKLOG = 16
_OPTIONS = {"server": ("on",), "wait": ("off",), "allow-remote": ("on", "off")}
_FORMS = "unix:PATH, tcp:HOST:PORT or fd=N"


class MonitorAddress(NamedTuple):  # a dataclass would cost the greeting 15 ms of imports
    """`path` of a unix socket, `host` and `port` of a TCP one, or `fd` of one that listens.

    Whoever connects may do all that the user who runs the guest may do: a `host` that others can
    reach is refused unless `allow_remote`. Port 0 is one that the system chooses.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0
    fd: int | None = None
    allow_remote: bool = False

    @classmethod
    def parse(cls, text: str) -> MonitorAddress:
        """Raises `UsageError`."""
        where, *options = text.split(",")
        given = {}
        for option in options:
            name, _, value = option.partition("=")
            given[name] = value or "on"
            if given[name] not in _OPTIONS.get(name, ()):
                raise UsageError(
                    f"monitor '{text}': '{option}' is not supported, expected server=on, "
                    "wait=off, or for tcp allow-remote=on"
                )
        allow_remote = given.get("allow-remote") == "on"
        kind, _, rest = where.partition(":")
        if kind == "unix" and rest:
            return cls(path=Path(rest))
        if kind == "tcp":
            host, _, port = rest.rpartition(":")
            if port.isascii() and port.isdecimal() and int(port) < 1 << 16:
                host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
                return cls(host=host, port=int(port), allow_remote=allow_remote)
        number = where.removeprefix("fd=")
        if number != where and number.isascii() and number.isdecimal():
            return cls(fd=int(number))
        raise UsageError(f"monitor '{text}': '{where}' is not an address, expected {_FORMS}")

    def listen(self) -> Listener:
        """A socket that listens there. Raises `ChardevError`."""
        if self.path is not None:
            _make_folder(self.path.parent)
            unix = UnixListener(self.path, _BACKLOG)
            return Listener(unix.socket, self, unix.close)
        try:
            found = self._inherited(self.fd) if self.fd is not None else self._listen_tcp()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ChardevError(f"no monitor can listen at {self}: {reason}") from None
        found.setblocking(False)
        bound = self._replace(port=found.getsockname()[1]) if self.fd is None else self
        return Listener(found, bound, found.close)

    def _inherited(self, fd: int) -> socket.socket:
        found = socket.socket(fileno=os.dup(fd))
        try:
            if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise ChardevError(
                    f"fd {fd} is not a socket that listens: call listen() before handing it over"
                )
        except BaseException:
            found.close()
            raise
        return found

    def _listen_tcp(self) -> socket.socket:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        family, _, _, _, where = found[0]
        if not self.allow_remote and not _is_loopback(str(where[0])):
            raise ChardevError(
                f"monitor {self}: who reaches it controls the guest and reads the host's files; "
                "listen at 127.0.0.1 or at a unix socket, or add allow-remote=on"
            )
        return socket.create_server((str(where[0]), self.port), family=family, backlog=_BACKLOG)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"fd={self.fd}" if self.fd is not None else f"tcp:{host}:{self.port}"


class Listener(NamedTuple):
    """A listening, non-blocking `socket`; `address` has the port that it got."""

    socket: socket.socket
    address: MonitorAddress
    close: Callable[[], None]

    @property
    def reachable(self) -> bool:
        """Whether other hosts can connect."""
        name = self.socket.getsockname()
        return self.socket.family != socket.AF_UNIX and not _is_loopback(str(name[0]))


def _is_loopback(host: str) -> bool:
    import ipaddress

    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _make_folder(folder: Path) -> None:
    for each in (*reversed(folder.parents), folder):
        try:
            each.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ChardevError(f"no folder can be made at {each}: {error.strerror}") from None
