# Compiled by build_kvm_x86.py: cffi types cannot be told to mypy, so all of it is Any, here only.
from typing import Any

ffi: Any
lib: Any
