"""Unix sockets that listen at a path, for their owner alone."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from itertools import count
from pathlib import Path

from cpufw.errors import ChardevError

_LONGEST = 107  # bytes of a path in sockaddr_un, without the NUL (unix(7))
_COUNT = count()


class UnixListener:
    """`socket` listens at `path` until `close`; only its owner may connect.

    A socket file that is there already is replaced if nobody listens at it. Raises `ChardevError`.
    """

    def __init__(self, path: Path, backlog: int) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        # It listens before it has its name, so that whoever sees the file can connect.
        aside = path.with_name(f".{os.getpid():x}.{next(_COUNT)}")
        try:
            if len(os.fsencode(path)) > _LONGEST:
                raise OSError("AF_UNIX path too long")
            os.fchmod(self.socket.fileno(), 0o600)  # what the file gets
            self.socket.bind(str(aside))
            try:
                self.socket.listen(backlog)
                try:
                    os.link(aside, path)
                except FileExistsError:
                    _remove_stale(path)
                    os.link(aside, path)
            finally:
                aside.unlink()
        except OSError as error:
            self.socket.close()
            reason = error.strerror or str(error)  # a path that is too long has no errno
            raise ChardevError(f"no socket can be made at {path}: {reason}") from None
        except BaseException:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        self._identity = _identity(path)

    def close(self) -> None:
        """Listen no more, and remove the file if it is still the same."""
        self.socket.close()
        if self._identity is not None and _identity(self.path) == self._identity:
            with suppress(OSError):
                self.path.unlink()
        self._identity = None


def _remove_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise ChardevError(f"{path} is there already and is no socket: name another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            pass  # somebody listens, and is busy
    raise ChardevError(f"another process listens at {path}: end it, or name another path")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
