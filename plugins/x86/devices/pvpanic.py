"""The port through which a guest says that it panicked: pvpanic.

Source: QEMU docs/specs/pvpanic, the ISA device.
"""

from __future__ import annotations

from collections.abc import Callable

PVPANIC_PORT = 0x505

_PANICKED, _CRASH_LOADED = 1 << 0, 1 << 1


class Pvpanic:
    """Calls `on_panic` when the guest panicked; that a crash kernel took over is no panic."""

    def __init__(self, on_panic: Callable[[], None]) -> None:
        self.ports = range(PVPANIC_PORT, PVPANIC_PORT + 1)
        self._on_panic = on_panic

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 (PortDevice)
        """The events that may be told."""
        return _PANICKED | _CRASH_LOADED

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 (PortDevice)
        """Take an event."""
        if value & _PANICKED:
            self._on_panic()
