"""What the three kinds of KVM file descriptor have in common."""

from __future__ import annotations

import os

from cpufw.errors import KvmError

from .failure import kvm_error
from .native import lib

TYPE_CHECKING = False  # importing typing would take longer than the whole package
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self


def constant(name: int | str) -> int:
    """The number of a constant of <linux/kvm.h>, by its kernel name (numbers pass through).

    Raises KvmError for a name that the headers cpufw was built with do not have.
    """
    if isinstance(name, int):
        return name
    value = getattr(lib, name, None)
    if not isinstance(value, int):
        raise KvmError(f"{name} is not in the kernel headers that cpufw was built with")
    return value


class Closing:
    """What `with` closes at the end of its block."""

    def close(self) -> None:
        """Give back what is held; does nothing the second time."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Handle(Closing):
    """An open KVM file descriptor, closed by `close` or `with`."""

    _fd = -1  # also when __init__ fails before it opens anything

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self.name = name

    @property
    def fd(self) -> int:
        """The file descriptor; KvmError when the handle is closed."""
        if self._fd < 0:
            raise self._closed_error()
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether the handle was closed."""
        return self._fd < 0

    def close(self) -> None:
        """Close the file descriptor; does nothing the second time."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def ioctl(self, name: str, request: int, argument: Any = 0) -> int:
        """Make a system call on it and return the result; `name` is the kernel's for `request`.

        `argument` is a number or a cffi pointer. Raises KvmError.
        """
        if self._fd < 0:
            raise self._closed_error(name)
        if isinstance(argument, int):
            result = lib.cpufw_ioctl_value(self._fd, request, argument)
        else:
            result = lib.cpufw_ioctl(self._fd, request, argument)
        if result < 0:
            raise kvm_error(name, -result, self.name)
        return int(result)

    def _closed_error(self, ioctl: str = "") -> KvmError:
        return KvmError(f"{self.name} is closed", ioctl)

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else f"fd {self._fd}"
        return f"<{type(self).__name__} {self.name}, {state}>"
