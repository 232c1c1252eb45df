"""Ways out for a guest: the debug exit and the reset control register."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from cpufw.core.vmstate import VMState, u8

DEBUG_EXIT_PORT = 0xF4
RESET_CONTROL_PORT = 0xCF9

_RESET_CPU = 1 << 2  # ICH9 datasheet 13.7.5, RST_CNT
_RESET_KEPT_BITS = 0x0A  # SYS_RST and FULL_RST stay as written


class DebugExit:
    """QEMU's isa-debug-exit with `iobase=0xf4,iosize=4`: writing v ends with (v << 1) | 1.

    So no value a guest writes looks like success (0): tests of guests rely on that.
    """

    def __init__(self, on_exit: Callable[[int], None]) -> None:
        self.ports = range(DEBUG_EXIT_PORT, DEBUG_EXIT_PORT + 4)
        self._on_exit = on_exit

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 (PortDevice)
        """0: the port has nothing to say."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 (PortDevice)
        """Call `on_exit` with the exit status."""
        self._on_exit(value << 1 | 1)


class ResetControl:
    """The chipset's reset control register at 0xcf9; the FADT names it as reset register."""

    vmstate: ClassVar[VMState] = VMState("reset-control", 1, u8("value", attr="_value"))

    def __init__(self, on_reset: Callable[[], None]) -> None:
        self.ports = range(RESET_CONTROL_PORT, RESET_CONTROL_PORT + 1)
        self._on_reset = on_reset
        self.reset()

    def reset(self) -> None:
        """No kind of reset chosen."""
        self._value = 0

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 (PortDevice)
        """The kind of reset last chosen."""
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 (PortDevice)
        """Reset when the CPU reset bit is set, otherwise note the kind of reset."""
        if value & _RESET_CPU:
            self._on_reset()
        else:
            self._value = value & _RESET_KEPT_BITS
