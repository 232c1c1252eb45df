"""Guest-physical addresses that no memory slot holds: which device answers which."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable

from cpufw.errors import CpufwError

from .port_device import MmioDevice

ADDRESS_BITS = 52  # MAXPHYADDR of the architecture, SDM vol. 3A 4.1.4

_PAGE_BITS = 12
_PAGES_COUNTED = 1024
_Entry = tuple[int, int, Callable[[int, int], int], Callable[[int, int, int], None]]


class MmioBus:
    """Routes MMIO accesses to devices; where nobody is, reads give all ones, writes do nothing.

    `unclaimed` counts the accesses of either kind that nobody took by the address of their
    4-KiB page, the first 1,024 such pages; a guest cannot make it grow beyond that.
    """

    def __init__(self) -> None:
        self.unclaimed: Counter[int] = Counter()
        self._devices: list[MmioDevice] = []
        self._entries: list[_Entry] = []

    def add(self, device: MmioDevice) -> None:
        """Give `device` its addresses.

        Raises CpufwError, and changes nothing, when they are no addresses or another device has
        one of them.
        """
        addresses = device.addresses
        name = type(device).__name__
        inside = range(1 << ADDRESS_BITS)
        if not addresses or addresses.step != 1 or addresses.start not in inside:
            raise CpufwError(
                f"device {name} asks for {addresses}; addresses are a non-empty run of at most "
                f"{ADDRESS_BITS} bits"
            )
        for other in self._devices:
            taken = other.addresses
            if addresses.start < taken.stop and taken.start < addresses.stop:
                raise CpufwError(
                    f"device {name} cannot have the addresses {_span(addresses)}: "
                    f"{type(other).__name__} has {_span(taken)}; give one of them another base"
                )
        entry = (addresses.start, addresses.stop, device.read, device.write)
        at = bisect_right(self._entries, addresses.start, key=_start)
        self._devices.append(device)
        # A new list: a vCPU that looks something up meanwhile sees the old one or this.
        self._entries = [*self._entries[:at], entry, *self._entries[at:]]

    def read(self, address: int, size: int) -> int:
        """What the guest reads from `size` (1 to 8) bytes at guest-physical `address`."""
        entry = self._find(address)
        if entry is None:
            self._count(address)
            return (1 << 8 * size) - 1
        return entry[2](address - entry[0], size)

    def write(self, address: int, size: int, value: int) -> None:
        """Do the guest's write of the low `size` bytes of `value`."""
        entry = self._find(address)
        if entry is None:
            self._count(address)
        else:
            entry[3](address - entry[0], size, value)

    def _find(self, address: int) -> _Entry | None:
        entries = self._entries
        at = bisect_right(entries, address, key=_start) - 1
        return entries[at] if at >= 0 and address < entries[at][1] else None

    def _count(self, address: int) -> None:
        page = address >> _PAGE_BITS << _PAGE_BITS
        if page in self.unclaimed or len(self.unclaimed) < _PAGES_COUNTED:
            self.unclaimed[page] += 1


def _start(entry: _Entry) -> int:
    return entry[0]


def _span(addresses: range) -> str:
    return f"{addresses.start:#x}-{addresses[-1]:#x}"
