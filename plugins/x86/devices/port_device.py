"""What the port bus and the MMIO bus ask of a device."""

from __future__ import annotations

from typing import Protocol


class PortDevice(Protocol):
    """A device behind x86 I/O ports: one range, or several with strangers' ports between them.

    Any vCPU's thread may call it, several at once. An access belongs to the device that
    owns its first port, also when it runs past the last one. Offsets count from the first port
    of all, so that a device at 0x60 and 0x64 sees the offsets 0 and 4.
    """

    @property
    def ports(self) -> range | tuple[range, ...]:
        """The ports, ranges in rising order."""
        ...

    def read(self, offset: int, size: int) -> int:
        """The `size` (1, 2 or 4) bytes at `offset`, little-endian, as one number."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """Store the low `size` (1, 2 or 4) bytes of `value` at `offset`."""
        ...


class MmioDevice(Protocol):
    """A device behind a range of guest-physical addresses; otherwise as a `PortDevice`.

    Its accesses have 1 to 8 bytes.
    """

    @property
    def addresses(self) -> range:
        """The addresses."""
        ...

    def read(self, offset: int, size: int) -> int:
        """The `size` bytes at `addresses[offset]`, little-endian, as one number."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """Store the low `size` bytes of `value` at `addresses[offset]`."""
        ...


class ByteRegisters:
    """A device whose registers are a byte wide: wider accesses are taken apart.

    The ISA bus does so: a word written to an index port sets the index and then, at the port
    after it, the data. Subclasses answer single bytes, at any offset.
    """

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        if size == 1:
            return self.read_byte(offset)
        return sum(self.read_byte(offset + at) << 8 * at for at in range(size))

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        for at in range(size):
            self.write_byte(offset + at, value >> 8 * at & 0xFF)

    def read_byte(self, offset: int) -> int:
        """The register at `offset`; all ones where there is none."""
        raise NotImplementedError

    def write_byte(self, offset: int, value: int) -> None:
        """Store `value` in the register at `offset`; nothing happens where there is none."""
        raise NotImplementedError
