"""Builds `cpufw_x86.kvm._kvm_x86`: x86's structs and ioctls, from the kernel's headers.

They must be those of Linux 5.17 or newer (KVM_GET_XSAVE2); the kernel that runs may be older.
Used by `setup.py` through cffi's hook.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
FOLDER = HERE.relative_to(ROOT).as_posix()

ffibuilder = FFI()
ffibuilder.cdef((HERE / "kvm_x86.cdef").read_text())
ffibuilder.set_source(
    "cpufw_x86.kvm._kvm_x86",
    '#include "run_x86.h"\n',
    depends=[f"{FOLDER}/{name}" for name in ("run_x86.h", "kvm_x86.cdef")],
    include_dirs=[FOLDER],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall"],
)
