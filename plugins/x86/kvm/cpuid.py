"""CPUID tables as KVM takes and gives them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from cpufw.errors import KvmError

from .native import ffi, lib

FLAG_SIGNIFICANT_INDEX: int = lib.KVM_CPUID_FLAG_SIGNIFCANT_INDEX
"""Set in `CpuidEntry.flags` where ECX selects a subleaf."""

_FIRST_TRY, _MOST = 128, 1 << 14
_ENTRY_BYTES: int = ffi.sizeof("struct kvm_cpuid_entry2")


class CpuidEntry(NamedTuple):
    """What CPUID returns for EAX = function (and ECX = index, when `flags` say so)."""

    function: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    flags: int
    eax: int
    ebx: int
    ecx: int
    edx: int


def read_entries(ioctl: Callable[[Any], int]) -> tuple[CpuidEntry, ...]:
    """Call `ioctl` with a growing `struct kvm_cpuid2` until all the entries fit."""
    size = _FIRST_TRY
    while True:
        table = ffi.new("struct kvm_cpuid2 *", {"nent": size, "entries": size})
        try:
            ioctl(table)
        except KvmError as error:
            if error.errno != errno.E2BIG or size >= _MOST:
                raise
            size *= 2
            continue
        raw, end = bytes(ffi.buffer(table.entries)), table.nent * _ENTRY_BYTES
        return _without_padding(
            tuple(_entry(raw[at : at + _ENTRY_BYTES]) for at in range(0, end, _ENTRY_BYTES))
        )


@lru_cache(maxsize=512)  # but for a few, all vCPUs of a VM have the same
def _entry(raw: bytes) -> CpuidEntry:
    e = ffi.from_buffer("struct kvm_cpuid_entry2 *", raw)
    return CpuidEntry(e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx)


def entries_struct(entries: Iterable[CpuidEntry]) -> Any:
    """A `struct kvm_cpuid2` holding `entries`."""
    rows = tuple(map(_packed, entries))
    table = ffi.new("struct kvm_cpuid2 *", {"nent": len(rows), "entries": len(rows)})
    ffi.memmove(table.entries, b"".join(rows), len(rows) * _ENTRY_BYTES)
    return table


@lru_cache(maxsize=512)
def _packed(entry: CpuidEntry) -> bytes:
    return bytes(ffi.buffer(ffi.new("struct kvm_cpuid_entry2 *", entry)))


def _without_padding(entries: tuple[CpuidEntry, ...]) -> tuple[CpuidEntry, ...]:
    """Without the zeroed rest of the buffer, which KVM before Linux 6.2 counts too."""
    end = len(entries)
    while end and not any(entries[end - 1]):
        end -= 1
    return entries[:end]
