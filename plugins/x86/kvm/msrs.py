"""Reading and writing MSRs in batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cpufw.errors import KvmError
from cpufw.kvm import Handle

from .native import ffi, lib

_BATCH = 255  # KVM takes fewer than 256 in one call


def read_msrs(handle: Handle, indices: Iterable[int]) -> dict[int, int]:
    """Read MSRs of a vCPU, or feature MSRs of the KVM device (KVM_GET_MSRS).

    Raises KvmError naming the first MSR that KVM refuses to read.
    """
    values: dict[int, int] = {}
    for batch in _batches([(index, 0) for index in indices]):
        _call(handle, "KVM_GET_MSRS", lib.KVM_GET_MSRS, batch)
        values.update((entry.index, entry.data) for entry in _entries(batch))
    return values


def read_known_msrs(handle: Handle, indices: Iterable[int]) -> dict[int, int]:
    """Those of the MSRs that KVM reads, with their values (KVM_GET_MSRS)."""
    values: dict[int, int] = {}
    rest = [(index, 0) for index in indices]
    while rest:
        batch = next(iter(_batches(rest)))
        done = handle.ioctl("KVM_GET_MSRS", lib.KVM_GET_MSRS, batch)
        values.update((entry.index, entry.data) for entry in batch.entries[0:done])
        refused = done < batch.nmsrs
        rest = rest[done + refused :]
    return values


def write_msrs(handle: Handle, values: Mapping[int, int]) -> None:
    """Write MSRs of a vCPU, in order (KVM_SET_MSRS).

    Raises KvmError naming the first MSR that KVM refuses; the ones before it are written.
    """
    for batch in _batches(list(values.items())):
        _call(handle, "KVM_SET_MSRS", lib.KVM_SET_MSRS, batch)


def _batches(values: list[tuple[int, int]]) -> Iterable[Any]:
    for start in range(0, len(values), _BATCH):
        rows = values[start : start + _BATCH]
        batch = ffi.new("struct kvm_msrs *", {"nmsrs": len(rows), "entries": len(rows)})
        for (index, value), entry in zip(rows, _entries(batch), strict=True):
            entry.index, entry.data = index, value
        yield batch


def _entries(batch: Any) -> Any:
    return batch.entries[0 : batch.nmsrs]


def _call(handle: Handle, name: str, request: int, batch: Any) -> None:
    done = handle.ioctl(name, request, batch)
    if done < batch.nmsrs:
        refused = batch.entries[done]
        value = f" the value {refused.data:#x}" if request == lib.KVM_SET_MSRS else ""
        raise KvmError(f"{name} on {handle.name}: KVM refuses MSR {refused.index:#x}{value}", name)
