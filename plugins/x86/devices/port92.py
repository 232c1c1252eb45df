"""System control port A at 0x92: fast A20 and fast reset, as the PS/2 had them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from cpufw.core.vmstate import VMState, u8

from .port_device import ByteRegisters

PORT_92 = 0x92

# ICH9 datasheet 13.7.2, PORT92
_INIT_NOW = 1 << 0
_A20 = 1 << 1


class Port92(ByteRegisters):
    """Reset when bit 0 rises; bit 1, A20, stays as written and masks nothing: KVM has no A20."""

    vmstate: ClassVar[VMState] = VMState("port92", 1, u8("value", attr="_value"))

    def __init__(self, on_reset: Callable[[], None]) -> None:
        self.ports = range(PORT_92, PORT_92 + 1)
        self._on_reset = on_reset
        self.reset()

    def reset(self) -> None:
        """A20 on, as firmware leaves it."""
        self._value = _A20

    def read_byte(self, offset: int) -> int:
        """What was written."""
        return 0xFF if offset else self._value

    def write_byte(self, offset: int, value: int) -> None:
        """Store it; reset the machine when bit 0 rises."""
        if offset:
            return
        rises = value & ~self._value & _INIT_NOW
        self._value = value
        if rises:
            self._on_reset()
