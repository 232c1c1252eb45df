"""`-daemonize` and `-pidfile`: how a management tool starts a process and finds it again."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from cpufw.system.errors import CommandLineError

_READY = b"\0"


class Daemon:
    """A process that left its parent; the parent waits until `ready` is called."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def ready(self) -> None:
        """Let the parent go, and leave its terminal and its working folder."""
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.close(null)
        with suppress(OSError):  # a parent that did not wait
            os.write(self._pipe, _READY)
        os.close(self._pipe)


def daemonize() -> Daemon | int:
    """Fork: a `Daemon` in the new process; in the old one, later, the exit status.

    That is 0 once the daemon was `ready`, and 1 if it ended before. There must be no threads yet.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        told = os.read(reader, 1)
        os.close(reader)
        return 0 if told == _READY else 1
    os.close(reader)
    os.setsid()
    if os.fork():  # no leader of a session: no terminal can become its own by chance
        os._exit(0)
    os.umask(0o027)
    os.set_inheritable(writer, False)
    return Daemon(writer)


class PidFile:
    """The file `path` with this process's number, locked as long as the process lives.

    Raises `CommandLineError` if it cannot be written, or another process has locked it.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()
        try:
            self._fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CommandLineError(
                f"cannot create PID file: Could not create '{path}': {error.strerror}"
            ) from None
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise CommandLineError(
                f"cannot create PID file: Cannot lock '{path}': {error.strerror}"
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, b"%d\n" % os.getpid())

    def remove(self) -> None:
        """Take the file away, and with it the lock."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._fd)
