"""The file of a snapshot: there in full under its name, or what was there before is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cpufw.errors import StateError


@contextmanager
def replaced(path: Path) -> Iterator[Callable[[bytes], None]]:
    """What writes a file that takes the place of `path` at the end of the block, safe on the disk.

    It is beside `path` until then, so that whatever goes wrong, a loss of power included, leaves
    an older file at `path` whole. Raises `StateError` for what the file system refuses.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise _refused(path, error) from None
    try:
        try:
            yield lambda data: _write_all(number, data)
            os.fsync(number)
        finally:
            os.close(number)
        os.replace(name, path)  # noqa: PTH105 - beside os.fsync
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        if isinstance(error, OSError):
            raise _refused(path, error) from None
        raise


def _write_all(number: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(number, rest) :]


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _refused(path: Path, error: OSError) -> StateError:
    return StateError(f"snapshot {path} cannot be written: {error.strerror}; what was there stays")
