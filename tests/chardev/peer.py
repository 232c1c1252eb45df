"""A guest's end of a chardev, for the tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cpufw.chardev import Chardev, EventLoop

PATIENCE = 10.0  # seconds


class Guest:
    """Takes input, up to `room` bytes of it, and remembers what else it was told."""

    def __init__(self, chardev: Chardev) -> None:
        self.chardev = chardev
        self.input = bytearray()
        self.room = 1 << 30
        self.offers = 0
        self.breaks: list[int] = []
        self.commands: list[str] = []
        self.errors: list[Exception] = []
        self.writable = threading.Event()
        chardev.on_input, chardev.on_break = self._take, self._break
        chardev.on_writable, chardev.on_command = self.writable.set, self.commands.append

    def _take(self, data: bytes) -> int:
        self.offers += 1
        taken = data[: self.room]
        self.room -= len(taken)
        self.input += taken
        return len(taken)

    def _break(self) -> bool:
        self.breaks.append(len(self.input))
        return True

    def write(self, data: bytes) -> None:
        """Write all of it, as the serial port does."""
        deadline = time.monotonic() + PATIENCE
        while data:
            self.writable.clear()
            data = data[self.chardev.write(data) :]
            if data:
                assert self.writable.wait(deadline - time.monotonic())


@contextmanager
def started(chardev: Chardev) -> Iterator[Guest]:
    """`chardev` at work; it, its thread and all it opened are gone afterwards."""
    guest = Guest(chardev)
    threads = threading.active_count()
    loop = EventLoop(guest.errors.append)
    chardev.start(loop)
    loop.start()
    try:
        yield guest
    finally:
        loop.close()
        chardev.close()
        assert threading.active_count() == threads
    assert guest.errors == []


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)
