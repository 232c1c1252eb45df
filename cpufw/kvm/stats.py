"""KVM's statistics of a VM or a vCPU (Linux Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD)."""

from __future__ import annotations

import os
import struct
from dataclasses import replace

from cpufw.core.statistics import Statistic
from cpufw.errors import KvmError

from .handle import Closing, Handle
from .native import lib

# struct kvm_stats_header: flags, name_size, num_desc, id_offset, desc_offset, data_offset
_HEADER = struct.Struct("=6I")
# struct kvm_stats_desc without the name: flags, exponent, size, offset, bucket_size
_DESCRIPTOR = struct.Struct("=IhHII")
_VALUE = 8

# Bits 3:0, 7:4 and 11:8 of a descriptor's flags.
_KINDS = ("cumulative", "instant", "peak", "linear-histogram", "log2-histogram")
_UNITS = ("", "bytes", "seconds", "cycles", "boolean")
_BASES = (10, 2)


class StatsFile(Closing):
    """The file of what KVM counts of a VM or of one vCPU (KVM_GET_STATS_FD).

    Opening one of a vCPU waits while it runs; reading it does not. Raises KvmError.
    """

    _fd = -1

    def __init__(self, counted: Handle) -> None:
        self._name = f"the statistics of {counted.name}"
        self._fd = counted.ioctl("KVM_GET_STATS_FD", lib.KVM_GET_STATS_FD)
        try:
            os.set_inheritable(self._fd, False)
            _, name_size, count, _, at, self._data = _HEADER.unpack(self._read(0, _HEADER.size))
            step = _DESCRIPTOR.size + name_size
            table = self._read(at, step * count)
        except KvmError:
            self.close()
            raise
        described = (
            _described(table[start : start + step]) for start in range(0, step * count, step)
        )
        self._known = [each for each in described if each is not None]
        ends = (offset + _VALUE * len(each.values) for offset, each in self._known)
        self._size = max(ends, default=0)

    def read(self) -> list[Statistic]:
        """Each counter as it stands, in KVM's order."""
        data = self._read(self._data, self._size)
        return [
            replace(each, values=struct.unpack_from(f"={len(each.values)}Q", data, offset))
            for offset, each in self._known
        ]

    def _read(self, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._fd, size, offset)
        except OSError as error:
            raise KvmError(f"{self._name} cannot be read: {error.strerror}") from None
        if len(data) < size:
            raise KvmError(f"{self._name} end after {len(data)} bytes, expected {size}")
        return data

    def close(self) -> None:
        """Close it; does nothing the second time."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _described(entry: bytes) -> tuple[int, Statistic] | None:
    """Where the values are, and the counter without them; None for a kind that is not known."""
    flags, exponent, size, offset, bucket_size = _DESCRIPTOR.unpack_from(entry)
    kind, unit, base = flags & 0xF, flags >> 4 & 0xF, flags >> 8 & 0xF
    if kind >= len(_KINDS) or unit >= len(_UNITS) or base >= len(_BASES):
        return None
    name = entry[_DESCRIPTOR.size :].split(b"\0")[0].decode("ascii", "replace")
    return offset, Statistic(
        name, _KINDS[kind], _UNITS[unit], _BASES[base], exponent, bucket_size, (0,) * size
    )
