"""A machine's disks as plain data, and what its guest has done with them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Operations:
    """Requests of one kind: those that were done, their bytes and nanoseconds, and the others.

    `failed` is what the host refused, `invalid` what is not on the disk.
    """

    done: int = 0
    bytes: int = 0
    nanoseconds: int = 0
    failed: int = 0
    invalid: int = 0


@dataclass
class DiskCounts:
    """What a disk has done since it was made; it was written up to `highest_offset`."""

    reads: Operations = field(default_factory=Operations)
    writes: Operations = field(default_factory=Operations)
    flushes: Operations = field(default_factory=Operations)
    highest_offset: int = 0


@dataclass(frozen=True)
class Disk:
    """A disk of `size` bytes, a raw image in `file`; `path` is its device's in the object tree.

    It takes `allocated` bytes of the host's. `host_device`: the file is a block device of the host.
    `counts` goes on counting.
    """

    name: str
    path: str
    file: str
    size: int
    allocated: int
    read_only: bool
    host_device: bool
    counts: DiskCounts
