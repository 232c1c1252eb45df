"""The x86 I/O port space: which device answers which port."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from cpufw.errors import CpufwError

from .port_device import PortDevice

PORTS = range(0x10000)

_Read = Callable[[int, int], int]
_Write = Callable[[int, int, int], None]


class PortBus:
    """Routes port accesses to devices; ports that nobody owns behave as an empty ISA bus.

    Reading such a port gives all ones, writing it does nothing. `unclaimed_reads` and
    `unclaimed_writes` count those accesses by port: a guest that makes many probably expects a
    device we lack.
    """

    def __init__(self) -> None:
        self.unclaimed_reads: Counter[int] = Counter()
        self.unclaimed_writes: Counter[int] = Counter()
        self._devices: list[PortDevice] = []
        # One entry a port, with the bound method in it: this is on the path of every exit.
        self._reads: dict[int, tuple[_Read, int]] = {}
        self._writes: dict[int, tuple[_Write, int]] = {}

    def add(self, device: PortDevice) -> None:
        """Give `device` its ports.

        Raises CpufwError, and changes nothing, when the ports are not x86 ports or another
        device has one of them.
        """
        ranges = _ranges(device)
        for ports in ranges:
            self._check(device, ports)
        self._devices.append(device)
        first = ranges[0].start
        for ports in ranges:
            for port in ports:
                self._reads[port] = (device.read, first)
                self._writes[port] = (device.write, first)

    def _check(self, device: PortDevice, ports: range) -> None:
        name = _name(device)
        if not ports or ports.step != 1 or ports.start not in PORTS or ports[-1] not in PORTS:
            raise CpufwError(
                f"device {name} asks for {ports}; I/O ports are a non-empty run inside 0..0xffff"
            )
        for other in self._devices:
            for taken in _ranges(other):
                if ports.start < taken.stop and taken.start < ports.stop:
                    raise CpufwError(
                        f"device {name} cannot have I/O ports {_span(ports)}: "
                        f"{_name(other)} has {_span(taken)}; give one of them another base"
                    )

    def read(self, port: int, size: int) -> int:
        """What the guest reads with IN of `size` (1, 2 or 4) bytes at `port`."""
        try:
            read, base = self._reads[port]
        except KeyError:
            self.unclaimed_reads[port] += 1
            return (1 << 8 * size) - 1
        return read(port - base, size)

    def write(self, port: int, size: int, value: int) -> None:
        """Do the guest's OUT of the low `size` (1, 2 or 4) bytes of `value` at `port`."""
        try:
            write, base = self._writes[port]
        except KeyError:
            self.unclaimed_writes[port] += 1
            return
        write(port - base, size, value)


def _ranges(device: PortDevice) -> tuple[range, ...]:
    ports = device.ports
    return (ports,) if isinstance(ports, range) else ports


def _name(device: PortDevice) -> str:
    return type(device).__name__


def _span(ports: range) -> str:
    return f"{ports.start:#x}" if len(ports) == 1 else f"{ports.start:#x}-{ports[-1]:#x}"
