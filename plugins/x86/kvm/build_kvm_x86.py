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
    '#include "run.h"\n#include "run_x86.h"\n#include "cpu_hotplug.h"\n#include "guest_memory.h"\n',
    sources=[f"{FOLDER}/cpu_hotplug.c", f"{FOLDER}/guest_memory.c"],
    depends=["cpufw/kvm/run.h"]
    + [
        f"{FOLDER}/{name}"
        for name in ("run_x86.h", "cpu_hotplug.h", "guest_memory.h", "kvm_x86.cdef")
    ],
    include_dirs=[FOLDER, "cpufw/kvm"],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-pthread"],
    extra_link_args=["-pthread"],
)
