"""Buffers from the driver to the device and back, and drivers that break the rules."""

from __future__ import annotations

import struct

import pytest
from guest_driver import (
    BASE,
    F_EVENT_IDX,
    F_INDIRECT,
    F_VERSION_1,
    INDIRECT,
    NEEDS_RESET,
    NEXT,
    RAM_SIZE,
    RAM_START,
    WRITE,
    Driver,
    Line,
    Ram,
)

from cpufw.virtio import EntropyDevice, VirtioMmio

RAM_END = RAM_START + RAM_SIZE


class Bench:
    """An entropy device without a thread, and a driver for it."""

    def __init__(self, features: int | None = None, size: int = 8) -> None:
        self.ram, self.line = Ram(), Line()
        self.device = VirtioMmio(EntropyDevice(), BASE, self.ram, self.line)
        self.driver = Driver(self.device, self.ram).start(features, size)
        self.queue = self.driver.queues[0]

    def buffer(self, size: int = 32) -> tuple[int, int, bool]:
        return self.driver.allocate(size), size, True

    def raw(self, number: int, address: int, length: int, flags: int, following: int = 0) -> None:
        data = struct.pack("<QIHH", address, length, flags, following)
        self.ram.put(self.queue.table + 16 * number, data)

    def offer_raw(self, head: int = 0) -> None:
        self.driver.make_available(self.queue, head)
        self.driver.run()


@pytest.mark.parametrize("indirect", [False, True])
def test_a_buffer_of_many_parts_is_filled_and_given_back(indirect: bool) -> None:
    bench = Bench()
    parts = [bench.buffer(size) for size in (8, 16, 40)]
    head = bench.driver.offer(parts, indirect=indirect)
    bench.driver.run()
    assert bench.driver.used() == [(head, 64)]
    assert all(bench.ram.get(address, size).strip(b"\0") for address, size, _ in parts)
    assert bench.line.level


def test_the_rings_wrap_around_many_times() -> None:
    bench = Bench(size=2)
    part = bench.buffer()
    for _ in range(70_000):  # past the 16 bits of the indexes
        bench.queue.free[:] = [0, 1]
        head = bench.driver.offer([part])
        bench.driver.run()
        assert bench.driver.used() == [(head, 32)]


def test_what_the_device_writes_is_told_for_the_dirty_log() -> None:
    bench = Bench()
    address, size, _ = part = bench.buffer()
    bench.driver.offer([part])
    bench.driver.run()
    assert bench.ram.is_dirty(address)
    assert bench.ram.is_dirty(address + size - 1)
    assert bench.ram.is_dirty(bench.queue.used + 2)  # the index
    assert bench.ram.is_dirty(bench.queue.used + 4)  # the first entry


@pytest.mark.parametrize("features", [F_VERSION_1, F_VERSION_1 | F_EVENT_IDX])
def test_the_driver_is_asked_to_notify_only_when_the_device_sleeps(features: int) -> None:
    bench = Bench(features)
    for _ in range(2):
        bench.driver.offer([bench.buffer()])
    bench.device.work()  # one of the two
    asked = _asked_to_notify(bench, 2)
    bench.driver.run()
    assert (asked, _asked_to_notify(bench, 2)) == (False, True)


def _asked_to_notify(bench: Bench, offered: int) -> bool:
    """Whether a driver that offers buffer number `offered` now must notify (2.7.10)."""
    used = bench.queue.used
    if bench.driver.features & F_EVENT_IDX:
        place = used + 4 + 8 * bench.queue.size
        return struct.unpack("<H", bench.ram.get(place, 2)) == (offered,)
    return bench.ram.get(used, 2) == b"\0\0"


def test_no_interrupt_for_a_driver_that_wants_none() -> None:
    bench = Bench(F_VERSION_1)
    bench.ram.put(bench.queue.available, b"\1\0")  # VIRTQ_AVAIL_F_NO_INTERRUPT
    bench.driver.offer([bench.buffer()])
    bench.driver.run()
    assert len(bench.driver.used()) == 1
    assert not bench.line.level


def test_used_event_says_after_how_many_buffers_the_interrupt_comes() -> None:
    bench = Bench()
    bench.ram.put(bench.queue.available + 4 + 2 * 8, struct.pack("<H", 2))
    levels = []
    for _ in range(5):
        bench.driver.offer([bench.buffer()])
        bench.driver.run()
        levels.append(bench.line.level)
        bench.driver.set(0x064, bench.driver.reg(0x060))
    assert levels == [False, False, True, False, False]


def broken(bench: Bench) -> str:
    assert bench.driver.status & NEEDS_RESET
    assert bench.line.level
    assert bench.driver.reg(0x060) & 2  # a configuration change tells the driver (2.1.2)
    assert bench.driver.used() == []
    reason = bench.device.broken
    assert "internal error" not in reason
    assert reason.startswith("driver error: ")
    assert bench.device.problem() == f"virtio-rng at {BASE:#x}: {reason}"
    # It does nothing more until it is reset, and then works as if it were new.
    bench.driver.notify()
    assert not bench.device.work()
    bench.driver.start(size=8)
    bench.queue = bench.driver.queues[0]
    head = bench.driver.offer([bench.buffer()])
    bench.driver.run()
    assert bench.driver.used() == [(head, 32)]
    assert bench.device.broken == ""
    return reason


def test_a_loop_of_descriptors() -> None:
    bench = Bench()
    address, size, _ = bench.buffer()
    bench.raw(0, address, size, NEXT | WRITE, 1)
    bench.raw(1, address, size, NEXT | WRITE, 0)
    bench.offer_raw()
    assert "loop" in broken(bench)


@pytest.mark.parametrize(
    ("address", "length"),
    [
        (RAM_END - 1, 2),
        (RAM_START - 16, 32),
        (0, 16),
        (BASE, 16),
        (RAM_START, 0xFFFF_FFFF),
        (0xFFFF_FFFF_FFFF_FFF0, 0x20),
    ],
)
def test_a_buffer_outside_ram(address: int, length: int) -> None:
    bench = Bench()
    bench.raw(0, address, length, WRITE)
    bench.offer_raw()
    assert f"{address:#x}, is not RAM" in broken(bench)


@pytest.mark.parametrize("head", [8, 0xFFFF])
def test_a_descriptor_beyond_the_table(head: int) -> None:
    bench = Bench()
    bench.offer_raw(head)
    assert f"descriptor {head} of a table of 8" in broken(bench)


def test_a_chain_that_leaves_the_table() -> None:
    bench = Bench()
    address, size, _ = bench.buffer()
    bench.raw(0, address, size, WRITE | NEXT, 500)
    bench.offer_raw()
    assert "descriptor 500" in broken(bench)


def test_a_readable_part_after_a_writable_one() -> None:
    bench = Bench()
    address, size, _ = bench.buffer()
    bench.raw(0, address, size, NEXT | WRITE, 1)
    bench.raw(1, address, size, 0)
    bench.offer_raw()
    assert "readable" in broken(bench)


def test_an_available_index_that_jumps() -> None:
    bench = Bench()
    bench.ram.put(bench.queue.available + 2, struct.pack("<H", 9))
    bench.driver.run()
    assert "available index" in broken(bench)


class TestIndirect:
    def test_inside_an_indirect_table(self) -> None:
        bench = Bench()
        table = bench.driver.allocate(16)
        bench.ram.put(table, struct.pack("<QIHH", table, 16, INDIRECT, 0))
        bench.raw(0, table, 16, INDIRECT)
        bench.offer_raw()
        assert "indirect table where none may be" in broken(bench)

    def test_not_negotiated(self) -> None:
        bench = Bench(F_VERSION_1)
        bench.raw(0, bench.driver.allocate(16), 16, INDIRECT)
        bench.offer_raw()
        assert "indirect table where none may be" in broken(bench)

    def test_with_a_next_descriptor(self) -> None:
        bench = Bench()
        bench.raw(0, bench.driver.allocate(16), 16, INDIRECT | NEXT, 1)
        bench.offer_raw()
        assert "indirect table where none may be" in broken(bench)

    @pytest.mark.parametrize("length", [0, 8, 24, 16 * 9, 0xFFFF_FFF0])
    def test_of_a_wrong_length(self, length: int) -> None:
        bench = Bench()
        bench.raw(0, bench.driver.allocate(16), length, INDIRECT)
        bench.offer_raw()
        assert "indirect table" in broken(bench)

    def test_outside_ram(self) -> None:
        bench = Bench()
        bench.raw(0, BASE, 16, INDIRECT)
        bench.offer_raw()
        assert "is not RAM" in broken(bench)

    def test_that_loops(self) -> None:
        bench = Bench()
        address, size, _ = bench.buffer()
        table = bench.driver.allocate(16)
        bench.ram.put(table, struct.pack("<QIHH", address, size, NEXT | WRITE, 0))
        bench.raw(0, table, 16, INDIRECT)
        bench.offer_raw()
        assert "loop" in broken(bench)

    def test_after_ordinary_descriptors_is_allowed(self) -> None:
        """2.7.5.3.2; and the write flag of the descriptor that refers to it says nothing."""
        bench = Bench(F_VERSION_1 | F_INDIRECT)
        first, second = bench.buffer(), bench.buffer()
        table = bench.driver.allocate(16)
        bench.ram.put(table, struct.pack("<QIHH", second[0], second[1], WRITE, 0))
        bench.raw(0, first[0], first[1], WRITE | NEXT, 1)
        bench.raw(1, table, 16, INDIRECT | WRITE)
        bench.offer_raw()
        assert bench.driver.used() == [(0, 64)]
