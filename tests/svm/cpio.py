"""Write an initramfs: a cpio archive in the kernel's "newc" format.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
"""

import stat
from pathlib import Path
from typing import BinaryIO

MAGIC = "070701"
TRAILER = "TRAILER!!!"


def write_cpio(folder: Path, archive: Path) -> None:
    """Everything under `folder`, owned by root, so that building it needs no privilege.

    Such archives can be joined end to end; the kernel unpacks them over one another.
    """
    with archive.open("wb") as stream:
        write_members(folder, stream)


def write_members(folder: Path, stream: BinaryIO) -> None:
    """All members in order of their names, and the one that ends an archive."""
    for number, path in enumerate(sorted(folder.rglob("*")), start=1):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            data = str(path.readlink()).encode()
        elif stat.S_ISREG(status.st_mode):
            data = path.read_bytes()
        else:
            data = b""
        name = str(path.relative_to(folder))
        write_entry(stream, number, name, status.st_mode, int(status.st_mtime), data)
    write_entry(stream, 0, TRAILER, 0, 0, b"")


def write_entry(
    stream: BinaryIO, number: int, name: str, mode: int, mtime: int, data: bytes
) -> None:
    """One member: the header's 13 numbers, the name, the data, each padded to 4 bytes."""
    encoded = name.encode() + b"\0"
    owner = group = checksum = 0
    links = 1
    devices = (0, 0, 0, 0)
    numbers = (number, mode, owner, group, links, mtime, len(data), *devices, len(encoded))
    header = MAGIC + "".join(f"{value:08x}" for value in (*numbers, checksum))
    stream.write(pad(header.encode() + encoded))
    stream.write(pad(data))


def pad(data: bytes) -> bytes:
    """`data` and zeros up to a multiple of 4 bytes."""
    return data + bytes(-len(data) % 4)
