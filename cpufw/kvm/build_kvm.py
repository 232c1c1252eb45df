"""Builds `cpufw.kvm._kvm`, the compiled half of the KVM bindings.

Struct layouts and constants come from the kernel's own headers through the C compiler.
Used by `setup.py` through cffi's hook.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = HERE.relative_to(ROOT).as_posix()


def header_names(*prefixes: str) -> list[str]:
    """The integer macros of <linux/kvm.h> whose names start with one of `prefixes`."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    macros = subprocess.run(
        [*compiler, "-E", "-dM", "-"],
        input="#include <linux/kvm.h>\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    defined = re.findall(r"^#define (\w+) +(?:\d+|0[xX][0-9a-fA-F]+)$", macros, re.MULTILINE)
    return sorted(name for name in defined if name.startswith(prefixes))


def declarations() -> str:
    """What `_kvm` offers: kvm.cdef, and each capability and exit reason the headers name."""
    names = header_names("KVM_CAP_", "KVM_EXIT_")
    constants = "".join(f"#define {name} ...\n" for name in names)
    return (HERE / "kvm.cdef").read_text() + constants


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "cpufw.kvm._kvm",
    '#include <sys/mman.h>\n#include "pages.h"\n#include "run.h"\n#include "uart16550.h"\n',
    sources=[f"{FOLDER}/{name}" for name in ("pages.c", "run.c", "uart16550.c")],
    depends=[f"{FOLDER}/{name}" for name in ("pages.h", "run.h", "uart16550.h", "kvm.cdef")],
    include_dirs=[FOLDER],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-pthread"],
    extra_link_args=["-pthread"],
)
