"""The console: what is typed reaches the guest, and what it writes the chardev."""

from __future__ import annotations

import os

import pytest
from guest_driver import BASE, NEEDS_RESET, Driver, Line, Ram

from cpufw.chardev import Chardev
from cpufw.virtio import ConsoleDevice, VirtioMmio


class SlowChardev(Chardev):
    """Takes `room` bytes, and waits then."""

    def __init__(self, room: int = 1 << 30) -> None:
        super().__init__("slow")
        self.room, self.output, self.resumed = room, b"", 0

    def write(self, data: bytes) -> int:
        taken = data[: self.room]
        self.room -= len(taken)
        self.output += taken
        return len(taken)

    def resume_input(self) -> None:
        self.resumed += 1


class BrokenChardev(Chardev):
    def write(self, data: bytes) -> int:  # noqa: ARG002
        raise BrokenPipeError("nobody reads")


class Console:
    """A console without a thread, and a driver for it."""

    def __init__(self, chardev: Chardev) -> None:
        self.ram, self.errors = Ram(), list[Exception]()
        self.device = VirtioMmio(ConsoleDevice(chardev, self.errors.append), BASE, self.ram, Line())
        self.driver = Driver(self.device, self.ram).start(queues=2)

    def offer(self, queue: int, *parts: bytes) -> list[int]:
        """Make a buffer of these contents available; the addresses of its parts."""
        addresses = [self.driver.allocate(len(part)) for part in parts]
        for address, part in zip(addresses, parts, strict=True):
            self.ram.put(address, part)
        sizes = map(len, parts)
        self.driver.offer(
            [(a, n, queue == 0) for a, n in zip(addresses, sizes, strict=True)], queue
        )
        self.driver.run()
        return addresses

    def written(self) -> int:
        return len(self.driver.used(1))


def test_output_arrives_in_order_and_buffers_come_back() -> None:
    chardev = SlowChardev()
    console = Console(chardev)
    console.offer(1, b"hello, ", b"world")
    console.offer(1, b"!\n")
    assert chardev.output == b"hello, world!\n"
    assert console.written() == 2


def test_a_buffer_larger_than_what_is_passed_on_at_once() -> None:
    chardev, text = SlowChardev(), os.urandom(200_000)
    Console(chardev).offer(1, text)
    assert chardev.output == text


def test_output_waits_for_a_chardev_that_is_full() -> None:
    chardev = SlowChardev(room=5)
    console = Console(chardev)
    console.offer(1, b"abc", b"defgh")
    console.offer(1, b"ijk")
    assert (chardev.output, console.written()) == (b"abcde", 0)
    for room, expected in ((1, b"abcdef"), (100, b"abcdefghijk")):
        chardev.room = room
        chardev.on_writable()
        console.driver.run()
        assert chardev.output == expected
    assert console.written() == 2


def test_output_that_waits_goes_out_once_after_a_restore() -> None:
    chardev = SlowChardev(room=2)
    console = Console(chardev)
    console.offer(1, b"abcdef")
    state = console.device.vmstate.save(console.device)
    after = SlowChardev()
    restored = VirtioMmio(ConsoleDevice(after, console.errors.append), BASE, console.ram, Line())
    restored.vmstate.load(restored, state)
    console.driver.registers = restored
    console.driver.run()
    assert chardev.output + after.output == b"abcdef"
    assert console.written() == 1


def test_a_chardev_that_broke_is_told_once_and_the_guest_goes_on() -> None:
    console = Console(BrokenChardev("broken"))
    for _ in range(3):
        console.offer(1, b"lost")
    assert [str(error) for error in console.errors] == ["nobody reads"]
    assert console.written() == 3


def test_input_is_put_into_the_guests_buffers() -> None:
    chardev = SlowChardev()
    console = Console(chardev)
    first, second = console.offer(0, bytes(3), bytes(4))
    (third,) = console.offer(0, bytes(8))
    assert chardev.on_input(b"typed text") == 10
    console.driver.run()
    assert console.driver.used(0) == [(0, 7), (2, 3)]
    assert console.ram.get(first, 3) + console.ram.get(second, 4) == b"typed t"
    assert console.ram.get(third, 8) == b"ext\0\0\0\0\0"
    assert chardev.resumed


def test_input_waits_for_buffers_and_the_chardev_for_room() -> None:
    chardev, typed = SlowChardev(), os.urandom(10_000)
    console = Console(chardev)
    taken = chardev.on_input(typed)
    assert 0 < taken < len(typed)
    assert chardev.on_input(typed[taken:]) == 0
    (first,) = console.offer(0, bytes(taken))
    assert chardev.resumed
    rest = chardev.on_input(typed[taken:])
    (second,) = console.offer(0, bytes(rest))
    assert console.ram.get(first, taken) == typed[:taken]
    assert console.ram.get(second, rest) == typed[taken : taken + rest]


def test_input_that_waits_is_there_after_a_restore() -> None:
    chardev = SlowChardev()
    console = Console(chardev)
    chardev.on_input(b"typed")
    state = console.device.vmstate.save(console.device)
    restored = VirtioMmio(
        ConsoleDevice(SlowChardev(), console.errors.append), BASE, console.ram, Line()
    )
    restored.vmstate.load(restored, state)
    console.driver.registers = restored
    (address,) = console.offer(0, bytes(5))
    assert console.ram.get(address, 5) == b"typed"


def test_a_reset_drops_input_that_nobody_read() -> None:
    chardev = SlowChardev()
    console = Console(chardev)
    chardev.on_input(b"old")
    console.driver.start(queues=2)
    chardev.on_input(b"new")
    (address,) = console.offer(0, bytes(6))
    assert console.ram.get(address, 6) == b"new\0\0\0"


@pytest.mark.parametrize("queue", [0, 1])
def test_buffers_for_the_wrong_direction(queue: int) -> None:
    chardev = SlowChardev()
    console = Console(chardev)
    chardev.on_input(b"typed")
    console.driver.offer([(console.driver.allocate(8), 8, queue == 1)], queue)
    console.driver.run()
    assert console.driver.status & NEEDS_RESET
    assert "console" in console.device.broken
    assert chardev.output == b""
