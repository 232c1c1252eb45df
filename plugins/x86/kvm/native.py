"""x86's compiled half, or a clear word when it was not built."""

from __future__ import annotations

from cpufw.errors import KvmError

try:
    from ._kvm_x86 import ffi, lib
except ModuleNotFoundError as missing:
    raise KvmError(
        "the compiled module cpufw_x86.kvm._kvm_x86 is missing: it is built on x86-64 machines "
        "only; in a source tree there, with 'python setup.py build_ext --inplace'"
    ) from missing

__all__ = ["ffi", "lib"]
