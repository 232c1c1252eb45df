"""The debug console: a port that takes text with no set-up (QEMU's isa-debugcon)."""

from __future__ import annotations

from collections.abc import Callable

BOCHS_PORT = 0xE9
SEABIOS_PORT = 0x402
_READ_BACK = 0xE9  # how guests find out that the console is there


class DebugConsole:
    """Bytes that the guest writes to `port` go to `sink`, in order, as they come."""

    def __init__(self, sink: Callable[[bytes], None], port: int = BOCHS_PORT) -> None:
        self.ports = range(port, port + 1)
        self._sink = sink

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 (PortDevice)
        """0xe9 on either port: guests probe for it."""
        return _READ_BACK

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 (PortDevice)
        """Pass the `size` bytes on, lowest first."""
        self._sink((value & (1 << 8 * size) - 1).to_bytes(size, "little"))
