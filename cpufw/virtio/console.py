"""The virtio console with one port (VIRTIO 1.2, 5.3); Linux calls it hvc0."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar

from cpufw.chardev import Chardev
from cpufw.core.vmstate import Field, blob, u64
from cpufw.errors import CpufwError
from cpufw.virtio.device import VirtioDevice, fill, split, total
from cpufw.virtio.ring import Chain, DriverError

_QUEUE_SIZE = 64
_CONFIG_BYTES = 12  # 5.3.4: nothing in it counts without the features for it
_MOST_INPUT = 4096  # waiting for buffers of the guest's; beyond that the host's end waits
_MOST_OUTPUT = 0x1_0000  # passed on at once


class ConsoleDevice(VirtioDevice):
    """A console that leads to `chardev`, whose callbacks it takes.

    Where the chardev can never be written to again, `on_error` is called with why, once, and what
    the guest writes is lost.
    """

    name, device_id, queue_sizes = "console", 3, (_QUEUE_SIZE, _QUEUE_SIZE)
    state: ClassVar[tuple[Field, ...]] = (
        blob("input", most=_MOST_INPUT, attr="device.input"),
        u64("sent", attr="device.sent"),
    )

    def __init__(self, chardev: Chardev, on_error: Callable[[Exception], None]) -> None:
        super().__init__(config=bytes(_CONFIG_BYTES))
        self._chardev = chardev
        self._on_error = on_error
        self._is_dead = False
        self._lock = threading.Lock()  # input comes on another thread than it goes
        self.input = bytearray()
        self.sent = 0  # how much of the buffer that is next for output was written already
        chardev.on_input = self._take
        chardev.on_writable = lambda: self._kick()

    def serve(self) -> bool:
        """Fill one buffer with input, and write one out."""
        received = self._receive()
        return self._transmit() or received

    def reset(self) -> None:
        """Drop what was typed and not read."""
        with self._lock:
            self.input.clear()
        self.sent = 0
        self._chardev.resume_input()

    def _take(self, data: bytes) -> int:
        with self._lock:
            taken = data[: _MOST_INPUT - len(self.input)]
            self.input += taken
        self._kick()
        return len(taken)

    def _receive(self) -> bool:
        if not self.input:
            return False
        queue = self.queues[0]
        chain = queue.pop()
        if chain is None:
            return False
        if chain.readable:
            raise DriverError("a buffer for console input that is not all writable (5.3.6)")
        with self._lock:
            data = bytes(self.input[: total(chain.writable)])
            del self.input[: len(data)]
        self.give_back(queue, chain, fill(chain.writable, data))
        self._chardev.resume_input()
        return True

    def _transmit(self) -> bool:
        queue = self.queues[1]
        chain = queue.pop()
        if chain is None:
            return False
        if chain.writable:
            raise DriverError("a buffer for console output that is writable (5.3.6)")
        if not self._write(chain):
            queue.put_back()  # the chardev says when it takes more
            return False
        self.sent = 0
        self.give_back(queue, chain, 0)
        return True

    def _write(self, chain: Chain) -> bool:
        """Whether all of it has gone out."""
        _, rest = split(chain.readable, self.sent)
        for part in rest:
            for start in range(0, len(part), _MOST_OUTPUT):
                data = bytes(part[start : start + _MOST_OUTPUT])
                taken = self._pass_on(data)
                self.sent += taken
                if taken < len(data):
                    return False
        return True

    def _pass_on(self, data: bytes) -> int:
        if not self._is_dead:
            try:
                return self._chardev.write(data)
            except (OSError, CpufwError) as error:
                self._is_dead = True
                self._on_error(error)
        return len(data)
