"""The registers: what a driver reads, and what happens to what it writes."""

from __future__ import annotations

import threading

import pytest
from guest_driver import (
    ACKNOWLEDGE,
    BASE,
    DRIVER,
    DRIVER_OK,
    F_EVENT_IDX,
    F_INDIRECT,
    F_VERSION_1,
    FAILED,
    FEATURES_OK,
    NEEDS_RESET,
    Driver,
    Line,
    Ram,
)

from cpufw.errors import StateError
from cpufw.virtio import EntropyDevice, VirtioMmio


@pytest.fixture
def ram() -> Ram:
    return Ram()


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def device(ram: Ram, line: Line) -> VirtioMmio:
    return VirtioMmio(EntropyDevice(), BASE, ram, line)


@pytest.fixture
def driver(device: VirtioMmio, ram: Ram) -> Driver:
    return Driver(device, ram)


def request(driver: Driver) -> int:
    head = driver.offer([(driver.allocate(16), 16, True)])
    driver.run()
    return head


def test_a_driver_finds_a_modern_device(driver: Driver) -> None:
    assert driver.reg(0x000) == 0x74726976
    assert driver.reg(0x004) == 2
    assert driver.reg(0x008) == 4
    assert driver.offered_features() == F_VERSION_1 | F_EVENT_IDX | F_INDIRECT
    assert driver.reg(0x034) == 8
    assert driver.reg(0x0FC) == 0


def test_a_queue_that_is_not_there(driver: Driver) -> None:
    driver.set(0x030, 1)
    assert (driver.reg(0x034), driver.reg(0x044)) == (0, 0)
    driver.set(0x044, 1)
    assert (driver.reg(0x044), driver.status) == (0, 0)


def test_shared_memory_regions_that_are_not_there(driver: Driver) -> None:
    driver.set(0x0AC, 0)
    assert driver.reg(0x0B0) == driver.reg(0x0B4) == 0xFFFF_FFFF


@pytest.mark.parametrize("features", [0, F_EVENT_IDX, F_VERSION_1 | 1 << 40, F_VERSION_1 | 1])
def test_features_the_device_cannot_agree_to(driver: Driver, features: int) -> None:
    assert not driver.negotiate(features)
    assert driver.status == ACKNOWLEDGE | DRIVER


def test_features_are_settled_once_agreed(driver: Driver, device: VirtioMmio) -> None:
    assert driver.negotiate(F_VERSION_1)
    driver.set(0x024, 0)
    driver.set(0x020, F_INDIRECT)
    assert device.driver_features == F_VERSION_1


def test_nothing_is_done_before_driver_ok(driver: Driver) -> None:
    assert driver.negotiate()
    driver.queues = [driver.set_up_queue(0, 8)]
    request(driver)
    assert driver.used() == []
    driver.set(0x070, driver.status | DRIVER_OK)
    driver.run()
    assert len(driver.used()) == 1


def test_nothing_is_done_for_a_driver_that_failed(driver: Driver) -> None:
    driver.start()
    driver.set(0x070, driver.status | FAILED)
    request(driver)
    assert driver.used() == []


def test_driver_ok_without_features_ok(driver: Driver, device: VirtioMmio) -> None:
    driver.set(0x070, ACKNOWLEDGE | DRIVER | DRIVER_OK)
    assert driver.status & NEEDS_RESET
    assert "FEATURES_OK" in device.broken


@pytest.mark.parametrize("size", [0, 3, 12, 16, 0x8000, 0xFFFF_FFFF])
def test_a_queue_size_that_cannot_be(driver: Driver, device: VirtioMmio, size: int) -> None:
    driver.negotiate()
    driver.set(0x038, size)
    driver.set(0x044, 1)
    assert driver.reg(0x044) == 0
    assert driver.status & NEEDS_RESET
    assert f"queue size {size} " in device.broken


@pytest.mark.parametrize("offset", [0x080, 0x090, 0x0A0])
@pytest.mark.parametrize("address", [0x10_0001, 0, BASE, 0x1F_FFF0, 1 << 32, 0xFFFF_FFFF_FFFF_FFF0])
def test_rings_that_are_not_in_ram(
    driver: Driver, device: VirtioMmio, offset: int, address: int
) -> None:
    driver.negotiate()
    for each in (0x080, 0x090, 0x0A0):
        driver.set(each, 0x10_0000)
        driver.set(each + 4, 0)
    driver.set(offset, address & 0xFFFF_FFFF)
    driver.set(offset + 4, address >> 32)
    driver.set(0x044, 1)
    assert driver.reg(0x044) == 0
    assert driver.status & NEEDS_RESET
    assert f"{address:#x}" in device.broken


def test_addresses_of_a_queue_in_use_do_not_change(driver: Driver) -> None:
    driver.start()
    driver.set(0x080, 0)
    driver.set(0x038, 3)
    request(driver)
    assert len(driver.used()) == 1


def test_the_line_is_up_until_every_reason_is_acknowledged(driver: Driver, line: Line) -> None:
    driver.start()
    request(driver)
    assert (driver.reg(0x060), line.level) == (1, True)
    driver.set(0x064, 2)
    assert (driver.reg(0x060), line.level) == (1, True)
    driver.set(0x064, 1)
    assert (driver.reg(0x060), line.level) == (0, False)


def test_reset_by_the_driver_and_by_the_machine(
    driver: Driver, device: VirtioMmio, line: Line
) -> None:
    for reset in (lambda: driver.set(0x070, 0), device.reset):
        driver.start()
        request(driver)
        reset()
        assert (driver.status, driver.reg(0x060), line.level) == (0, 0, False)
        assert (driver.reg(0x044), device.driver_features) == (0, 0)


def test_a_queue_can_be_stopped_and_set_up_elsewhere(driver: Driver) -> None:
    driver.start()
    request(driver)
    driver.set(0x044, 0)
    assert driver.reg(0x044) == 0
    driver.queues = [driver.set_up_queue(0, 4)]
    head = request(driver)
    assert driver.used() == [(head, 16)]


@pytest.mark.parametrize(("offset", "size"), [(0x070, 1), (0x070, 2), (0x071, 4), (0x070, 8)])
def test_only_aligned_accesses_of_four_bytes_count(
    device: VirtioMmio, driver: Driver, offset: int, size: int
) -> None:
    driver.negotiate()
    assert device.read(offset, size) == 0
    device.write(offset, size, 0)
    assert driver.status == ACKNOWLEDGE | DRIVER | FEATURES_OK


class TestState:
    def test_a_guest_goes_on_after_it(self, driver: Driver, device: VirtioMmio, ram: Ram) -> None:
        driver.start()
        request(driver)
        driver.used()
        waiting = driver.offer([(driver.allocate(16), 16, True)])
        driver.set(0x030, 0)
        state = device.vmstate.save(device)

        line = Line()
        restored = VirtioMmio(EntropyDevice(), BASE, ram, line)
        restored.vmstate.load(restored, state)
        assert line.level  # the first request's interrupt was not acknowledged
        driver.registers = restored
        assert driver.status == ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
        driver.run()
        assert driver.used() == [(waiting, 16)]
        driver.set(0x064, 1)
        assert not line.level

    def test_a_broken_device_stays_broken(
        self, driver: Driver, device: VirtioMmio, ram: Ram, line: Line
    ) -> None:
        driver.set(0x070, DRIVER_OK)
        restored = VirtioMmio(EntropyDevice(), BASE, ram, line)
        restored.vmstate.load(restored, device.vmstate.save(device))
        assert restored.broken == device.broken != ""
        assert restored.read(0x070, 4) & NEEDS_RESET

    def test_rings_that_are_not_in_this_machine(
        self, driver: Driver, device: VirtioMmio, ram: Ram, line: Line
    ) -> None:
        state = device.vmstate.save(driver.start() and device)
        state["fields"]["queues"][0]["fields"]["used"] = 0
        with pytest.raises(StateError, match=r"used ring.*is not RAM"):
            VirtioMmio(EntropyDevice(), BASE, ram, line).vmstate.load(device, state)


class TestThread:
    def test_a_notification_is_answered_by_an_interrupt(self, ram: Ram) -> None:
        raised = threading.Event()
        device = VirtioMmio(EntropyDevice(), BASE, ram, lambda level: level and raised.set())
        device.start()
        try:
            driver = Driver(device, ram).start()
            head = driver.offer([(driver.allocate(16), 16, True)])
            driver.notify()
            assert raised.wait(10)
            assert driver.used() == [(head, 16)]
        finally:
            device.close()

    def test_nothing_happens_while_it_is_paused(self, ram: Ram) -> None:
        raised = threading.Event()
        device = VirtioMmio(EntropyDevice(), BASE, ram, lambda level: level and raised.set())
        device.start()
        try:
            driver = Driver(device, ram).start()
            device.pause()
            head = driver.offer([(driver.allocate(16), 16, True)])
            driver.notify()
            assert not raised.wait(0.1)
            assert driver.used() == []
            device.resume()
            assert raised.wait(10)
            assert driver.used() == [(head, 16)]
        finally:
            device.close()

    def test_the_end_leaves_no_thread_and_no_view(self, ram: Ram, line: Line) -> None:
        device = VirtioMmio(EntropyDevice(), BASE, ram, line)
        device.start()
        driver = Driver(device, ram).start()
        before = threading.active_count()
        device.close()
        device.close()
        assert threading.active_count() == before - 1
        del driver
        ram.bytes.clear()  # BufferError while a view of it is in use
