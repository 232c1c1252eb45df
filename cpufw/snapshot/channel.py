"""The connection of a migration: a unix or TCP socket on which nobody stays silent for long."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from cpufw.errors import StateError, UsageError

TIMEOUT = 10.0
"""Seconds without any progress after which the other side counts as gone."""

_HIGHEST_PORT = 0xFFFF


class Address(NamedTuple):
    """Where a migration is received: a unix socket's `path`, or a TCP `host` and `port`."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """`unix:PATH` or `tcp:HOST:PORT`, an IPv6 host in brackets. Raises `UsageError`."""
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest:
            return cls(path=rest)
        host, _, port = rest.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        number = int(port) if port.isascii() and port.isdigit() else 0
        if kind == "tcp" and host and 0 < number <= _HIGHEST_PORT:
            return cls(host=host, port=number)
        raise UsageError(f"'{text}' is not unix:PATH or tcp:HOST:PORT")

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"tcp:{self.host}:{self.port}"


class Channel:
    """One end of a connection. What fails on it raises `StateError`."""

    def __init__(self, connection: socket.socket, peer: str, timeout: float = TIMEOUT) -> None:
        connection.settimeout(timeout)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self.peer, self._timeout = connection, peer, timeout

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost(error) from None

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only where the other side has closed the connection."""
        parts = []
        while size:
            try:
                part = self._socket.recv(size)
            except OSError as error:
                raise self._lost(error) from None
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _lost(self, error: OSError) -> StateError:
        if isinstance(error, TimeoutError):
            return StateError(f"{self.peer} has been silent for {self._timeout:g} s")
        return StateError(f"the connection to {self.peer} is lost: {error.strerror}")

    def wait_for_data(self, seconds: float) -> None:
        """Wait at most `seconds` for what is read next, instead of the usual time."""
        self._socket.settimeout(seconds)

    def abort(self) -> None:
        """End it for both sides, whoever waits on it; from any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended already

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def connect(address: Address, timeout: float = TIMEOUT) -> Channel:
    """A connection to who listens at `address`. Raises `StateError`."""
    try:
        if address.path:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(timeout)
                connection.connect(address.path)
            except BaseException:
                connection.close()
                raise
        else:
            connection = socket.create_connection((address.host, address.port), timeout)
    except OSError as error:
        raise StateError(f"cannot connect to {address}: {error.strerror or error}") from None
    return Channel(connection, str(address), timeout)


class Listener:
    """Waits at `address` for one connection. Raises `StateError` if it cannot listen there.

    A unix socket is for this user only, and goes when the listener is closed.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        try:
            if address.path:
                self._socket = socket.socket(socket.AF_UNIX)
                self._bind_path(address.path)
            else:
                family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
                self._socket = socket.create_server(family[0][4][:2], family=family[0][0])
            self._socket.listen(1)
        except OSError as error:
            if hasattr(self, "_socket"):
                self._socket.close()
            raise StateError(f"cannot listen at {address}: {error.strerror or error}") from None

    def _bind_path(self, path: str) -> None:
        before = os.umask(0o177)
        try:
            self._socket.bind(path)
        finally:
            os.umask(before)

    def accept(self, timeout: float = TIMEOUT, patience: float | None = None) -> Channel:
        """The connection; `patience` is how many seconds to wait for it, None: for ever."""
        self._socket.settimeout(patience)
        try:
            connection, _ = self._socket.accept()
        except TimeoutError:
            raise StateError(f"nobody came to {self.address} within {patience:g} s") from None
        except OSError as error:
            raise StateError(f"cannot listen at {self.address}: {error.strerror}") from None
        return Channel(connection, f"the source at {self.address}", timeout)

    def close(self) -> None:
        """Listen no longer."""
        self._socket.close()
        if self.address.path:
            Path(self.address.path).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
