"""The x86 port bus: who answers which port."""

from __future__ import annotations

import pytest

from cpufw.errors import CpufwError
from cpufw_x86.devices import DebugExit, PortBus


class Latch:
    """A device that remembers the accesses it got and reads as the last value written."""

    def __init__(self, ports: range) -> None:
        self.ports: range | tuple[range, ...] = ports
        self.accesses: list[tuple[int, int]] = []
        self.value = 0

    def read(self, offset: int, size: int) -> int:
        self.accesses.append((offset, size))
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.accesses.append((offset, size))
        self.value = value


def test_device_sees_offsets_in_its_own_range() -> None:
    bus, latch = PortBus(), Latch(range(0x600, 0x610))
    bus.add(latch)
    bus.write(0x608, 4, 0x12345678)
    assert bus.read(0x60F, 1) == 0x12345678
    assert latch.accesses == [(8, 4), (15, 1)]


@pytest.mark.parametrize(("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF)])
def test_port_nobody_owns_reads_all_ones(size: int, ones: int) -> None:
    bus = PortBus()
    bus.add(Latch(range(0x600, 0x610)))
    assert bus.read(0x5FF, size) == ones
    assert bus.read(0x610, size) == ones
    assert bus.unclaimed_reads == {0x5FF: 1, 0x610: 1}


def test_writes_nobody_takes_are_counted_by_port() -> None:
    bus = PortBus()
    for port in (0x80, 0x80, 0xCF8):
        bus.write(port, 1, 0)
    assert bus.unclaimed_writes == {0x80: 2, 0xCF8: 1}


@pytest.mark.parametrize(
    "ports", [range(0xF0, 0xF5), range(0xF7, 0x100), range(0xF5, 0xF6), range(0x10000)]
)
def test_overlap_is_refused_and_names_both_devices(ports: range) -> None:
    bus, first, second = PortBus(), DebugExit(list[int]().append), Latch(ports)
    bus.add(first)
    with pytest.raises(CpufwError, match=r"Latch cannot have .*DebugExit has 0xf4-0xf7"):
        bus.add(second)
    bus.write(ports.start if ports.start not in first.ports else 0xF0, 1, 1)
    assert second.accesses == [], "a refused device must not get any port"


def test_device_with_two_ranges_leaves_the_ports_between_to_others() -> None:
    bus, split, between = PortBus(), Latch(range(0)), Latch(range(0xCF9, 0xCFA))
    split.ports = (range(0xCF8, 0xCF9), range(0xCFC, 0xD00))
    bus.add(split)
    bus.add(between)
    bus.write(0xCF8, 4, 1)
    bus.write(0xCFE, 2, 2)
    bus.write(0xCF9, 1, 3)
    assert (split.accesses, between.accesses) == ([(0, 4), (6, 2)], [(0, 1)])
    with pytest.raises(CpufwError, match="Latch cannot have"):
        bus.add(Latch(range(0xCFD, 0xCFE)))


def test_neighbours_are_not_an_overlap() -> None:
    bus = PortBus()
    for ports in (range(0xF4, 0xF8), range(0xF0, 0xF4), range(0xF8, 0xF9)):
        bus.add(Latch(ports))


@pytest.mark.parametrize(
    "ports", [range(0), range(0xFFFF, 0x10001), range(-1, 3), range(0x60, 0x68, 4)]
)
def test_ports_outside_the_port_space_are_refused(ports: range) -> None:
    with pytest.raises(CpufwError, match="Latch asks for"):
        PortBus().add(Latch(ports))
