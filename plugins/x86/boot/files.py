"""Reading the files that a guest is made of."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from cpufw.errors import ImageError
from cpufw_x86.memory_map import GIB, HOLE_START, MIB


def read_file(path: Path | str, what: str) -> bytes:
    """The content of the file at `path`; `what` names it in errors (`guest image`, `initrd`).

    Raises `ImageError` if it is missing, empty, a device, or larger than all low RAM.
    """
    path = Path(path)
    try:
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                raise ImageError(f"{what} {path} is a device, expected a file")
            if status.st_size > HOLE_START:
                raise _too_large(path, what)
            # A pipe has no size, and may have no end.
            is_file = stat.S_ISREG(status.st_mode)
            content = file.read() if is_file else _read_pipe(file, path, what)
    except OSError as error:
        raise ImageError(f"{what} {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ImageError(f"{what} {str(path)!r} is not a path") from None
    except MemoryError:
        raise ImageError(f"{what} {path} is larger than what this host can hold") from None
    if not content:
        raise ImageError(f"{what} {path} is empty")
    return content


def _read_pipe(file: IO[bytes], path: Path, what: str) -> bytes:
    content = bytearray()
    while chunk := file.read(MIB):
        content += chunk
        if len(content) > HOLE_START:
            raise _too_large(path, what)
    return bytes(content)


def _too_large(path: Path, what: str) -> ImageError:
    return ImageError(
        f"{what} {path} is larger than {HOLE_START // GIB} GiB, all of a guest's memory below 4 GiB"
    )
