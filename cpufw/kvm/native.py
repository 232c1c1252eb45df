"""The compiled half, or a clear word when it was not built."""

from __future__ import annotations

from cpufw.errors import KvmError

try:
    from ._kvm import ffi, lib
except ModuleNotFoundError as missing:
    raise KvmError(
        "the compiled module cpufw.kvm._kvm is missing: in a source tree, build it with "
        "'python setup.py build_ext --inplace'"
    ) from missing

__all__ = ["ffi", "lib"]
