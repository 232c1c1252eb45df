"""What the port bus asks of a device."""

from __future__ import annotations

from typing import Protocol


class PortDevice(Protocol):
    """A device behind a range of x86 I/O ports.

    Any vCPU's thread may call it, several at once. An access belongs to the device that
    owns its first port, also when it runs past the last one.
    """

    ports: range

    def read(self, offset: int, size: int) -> int:
        """The `size` (1, 2 or 4) bytes at `ports[offset]`, little-endian, as one number."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """Store the low `size` (1, 2 or 4) bytes of `value` at `ports[offset]`."""
        ...
