"""The test device and the MMIO bus, as the guests of kvm-unit-tests use them."""

from __future__ import annotations

import pytest

from cpufw.errors import CpufwError
from cpufw_x86.devices import MmioBus, PortBus, Testdev, TestdevMemory


@pytest.mark.parametrize("base", [0xE0, 0xE8])
def test_ports_read_back(base: int) -> None:
    bus = PortBus()
    bus.add(Testdev(lambda _number, _level: None))
    bus.write(base, 4, 0x12345678)
    assert [bus.read(base + at, 1) for at in (0, 2, 3)] == [0x78, 0x34, 0x12]
    bus.write(base + 2, 2, 0xBBAA)
    assert bus.read(base, 4) == 0xBBAA5678
    assert bus.read(0xE0, 4) == bus.read(0xE8, 4), "both are the same four bytes"
    bus.write(0xE4, 4, 0x1000)
    assert bus.read(base, 4) == 0xBBAA5678, "flushing a page is something else"


def test_interrupt_lines() -> None:
    bus, heard = PortBus(), list[tuple[int, bool]]()
    bus.add(Testdev(lambda number, level: heard.append((number, level))))
    bus.write(0x2000, 1, 1)
    bus.write(0x2017, 1, 1)
    bus.write(0x2017, 1, 0)
    assert heard == [(0, True), (23, True), (23, False)]
    assert bus.read(0x2018, 1) == 0xFF


@pytest.mark.parametrize("size", range(1, 9))
def test_memory_behind_mmio(size: int) -> None:
    bus, device = MmioBus(), TestdevMemory()
    bus.add(device)
    data = bytes(range(0x81, 0x81 + size))
    bus.write(0xFF000123, size, int.from_bytes(data, "little"))
    assert bus.read(0xFF000123, size).to_bytes(size, "little") == data
    assert bus.read(0xFF000122, 1) == bus.read(0xFF000123 + size, 1) == 0
    bus.write(0xFF00FFFF, size, int.from_bytes(data, "little"))
    assert bus.read(0xFF00FFFF, 1) == data[0], "runs past the end: what is inside is kept"
    state = TestdevMemory.vmstate.save(device)
    device.reset()
    assert bus.read(0xFF000123, size) == 0
    TestdevMemory.vmstate.load(device, state)
    assert bus.read(0xFF000123, size).to_bytes(size, "little") == data


class Window:
    def __init__(self, addresses: range) -> None:
        self.addresses = addresses
        self.accesses: list[tuple[int, int]] = []

    def read(self, offset: int, size: int) -> int:
        self.accesses.append((offset, size))
        return 0x55

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        self.accesses.append((offset, size))


def test_mmio_goes_to_the_device_whose_address_it_is() -> None:
    bus = MmioBus()
    windows = [Window(range(start, start + 0x200)) for start in (0x3000, 0x1000, 0x1200)]
    for window in windows:
        bus.add(window)
    bus.write(0x11FC, 4, 0)
    assert bus.read(0x1200, 4) == 0x55
    assert bus.read(0x31FF, 8) == 0x55
    assert [window.accesses for window in windows] == [[(0x1FF, 8)], [(0x1FC, 4)], [(0, 4)]]


@pytest.mark.parametrize("address", [0, 0xFFF, 0x1400, 0x2FFF, 0x3200, (1 << 52) - 1])
def test_mmio_where_nobody_is_reads_all_ones(address: int) -> None:
    bus = MmioBus()
    for start in (0x1000, 0x1200, 0x3000):
        bus.add(Window(range(start, start + 0x200)))
    assert bus.read(address, 8) == (1 << 64) - 1
    bus.write(address, 2, 0)
    assert bus.unclaimed == {address & ~0xFFF: 2}


def test_a_guest_cannot_fill_the_count_of_unclaimed_pages() -> None:
    bus = MmioBus()
    for page in range(5000):
        bus.read(page << 12, 4)
    assert len(bus.unclaimed) <= 1024


@pytest.mark.parametrize(
    "addresses", [range(0xFFF, 0x1001), range(0x1FFF, 0x2000), range(0x1800, 0x1900)]
)
def test_mmio_overlap_is_refused(addresses: range) -> None:
    bus = MmioBus()
    bus.add(Window(range(0x1000, 0x2000)))
    with pytest.raises(CpufwError, match=r"Window has 0x1000-0x1fff"):
        bus.add(Window(addresses))


@pytest.mark.parametrize("addresses", [range(0), range(-8, 8), range(1 << 52, (1 << 52) + 8)])
def test_mmio_outside_the_address_space_is_refused(addresses: range) -> None:
    with pytest.raises(CpufwError, match="Window asks for"):
        MmioBus().add(Window(addresses))
