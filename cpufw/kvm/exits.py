"""Why `VCPU.run` came back: one class for each kind of exit that Python serves.

A guest's read (`IoExit.is_in`, a `MmioExit` that is not a write) is answered by setting
`value` (or `data`) before the vCPU runs again; it begins as all ones, what a bus with nothing
on it returns. The guest sees the access finished only in the next `run`.
"""

from __future__ import annotations

import sys

from cpufw.errors import KvmError

from .native import lib

TYPE_CHECKING = False  # importing typing would take longer than the whole package
if TYPE_CHECKING:
    from typing import Any

    from .uart import Uart16550
    from .vcpu import VCPU


class Exit:
    """Any exit."""

    __slots__ = ()

    def __repr__(self) -> str:
        names = (name for kind in type(self).__mro__ for name in getattr(kind, "__slots__", ()))
        shown = ((name, getattr(self, name)) for name in names if not name.startswith("_"))
        fields = ", ".join(
            f"{name}={value:#x}" if type(value) is int else f"{name}={value!r}"
            for name, value in shown
        )
        return f"{type(self).__name__}({fields})"


class IoExit(Exit):
    """A port access: `count` items of `size` bytes (count > 1: INS or OUTS)."""

    __slots__ = ("_items", "count", "is_in", "port", "size", "value")
    __match_args__ = ("port", "size", "count", "is_in", "value")

    def __init__(
        self, port: int, size: int, count: int, is_in: bool, value: int, items: Any = None
    ) -> None:
        self.port = port
        self.size = size
        self.count = count
        self.is_in = is_in
        self.value = value
        """What the guest wrote, or the answer; of several items, the first."""
        self._items = items  # count > 1: a buffer over the run page, good until the next run

    @property
    def data(self) -> bytes:
        """All the items, as bytes in memory order."""
        if self._items is not None:
            return bytes(self._items)
        return self.value.to_bytes(self.size, sys.byteorder)

    @data.setter
    def data(self, answer: bytes) -> None:
        if len(answer) != self.size * self.count:
            raise KvmError(
                f"port {self.port:#x}: the answer has {len(answer)} bytes instead of "
                f"{self.size} x {self.count}"
            )
        self.value = int.from_bytes(answer[: self.size], sys.byteorder)
        if self._items is not None:
            self._items[:] = answer

    def _answer(self, vcpu: VCPU) -> None:
        vcpu._exit.value = self.value


class MmioExit(Exit):
    """An access to guest-physical memory that no slot holds."""

    __slots__ = ("address", "is_write", "length", "value")
    __match_args__ = ("address", "length", "is_write", "value")

    def __init__(self, address: int, length: int, is_write: bool, value: int) -> None:
        self.address = address
        self.length = length
        self.is_write = is_write
        self.value = value

    @property
    def data(self) -> bytes:
        """The value, as bytes in memory order."""
        return self.value.to_bytes(self.length, sys.byteorder)

    @data.setter
    def data(self, answer: bytes) -> None:
        if len(answer) != self.length:
            raise KvmError(
                f"MMIO at {self.address:#x}: the answer has {len(answer)} bytes instead of "
                f"{self.length}"
            )
        self.value = int.from_bytes(answer, sys.byteorder)

    def _answer(self, vcpu: VCPU) -> None:
        vcpu._exit.value = self.value


class HltExit(Exit):
    """The guest halted, in a VM with no in-kernel interrupt controller."""

    __slots__ = ()


class ShutdownExit(Exit):
    """The guest triple-faulted (x86) or shut itself down."""

    __slots__ = ()


class IrqWindowExit(Exit):
    """The guest can now take an interrupt that user space wanted to inject."""

    __slots__ = ()


class FailEntryExit(Exit):
    """The hardware refused to enter the guest: `reason` is the hardware's own number."""

    __slots__ = ("cpu", "reason")
    __match_args__ = ("reason", "cpu")

    def __init__(self, reason: int, cpu: int) -> None:
        self.reason, self.cpu = reason, cpu


_EMULATION: int = lib.KVM_INTERNAL_ERROR_EMULATION


class InternalErrorExit(Exit):
    """KVM could not go on; `instruction` holds the bytes it failed to emulate, if it gave them."""

    __slots__ = ("data", "instruction", "suberror")
    __match_args__ = ("suberror", "data", "instruction")

    def __init__(self, suberror: int, data: tuple[int, ...], instruction: bytes) -> None:
        self.suberror, self.data, self.instruction = suberror, data, instruction

    @property
    def is_emulation_failure(self) -> bool:
        """Whether the suberror is KVM_INTERNAL_ERROR_EMULATION."""
        return self.suberror == _EMULATION


class SystemEventExit(Exit):
    """The guest asked for something like power-off or reset (KVM_SYSTEM_EVENT_*)."""

    __slots__ = ("data", "type")
    __match_args__ = ("type", "data")

    def __init__(self, type: int, data: tuple[int, ...]) -> None:
        self.type, self.data = type, data


class Interrupted(Exit):
    """A signal ended the run: `kicked` when it was `VCPU.kick`, otherwise any other signal."""

    __slots__ = ("kicked",)
    __match_args__ = ("kicked",)

    def __init__(self, kicked: bool) -> None:
        self.kicked = kicked


class OutputReady(Exit):
    """`uart` holds output worth collecting now; comes again until it is drained.

    None where `VCPU.announce_access` asked for it and another device was touched.
    """

    __slots__ = ("uart",)
    __match_args__ = ("uart",)

    def __init__(self, uart: Uart16550 | None) -> None:
        self.uart = uart


class OtherExit(Exit):
    """An exit that has no class here; `name` is the kernel's KVM_EXIT_* name of `reason`."""

    __slots__ = ("name", "reason")
    __match_args__ = ("reason", "name")

    def __init__(self, reason: int, name: str) -> None:
        self.reason, self.name = reason, name
