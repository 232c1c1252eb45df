"""What a virtio device is, whatever it does and however the guest reaches it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from cpufw.core.vmstate import Field
from cpufw.virtio.ring import Chain, Virtqueue


class VirtioDevice:
    """A device: its number, features, queues and configuration (VIRTIO 1.2, 5).

    The transport sets `driver_features` and calls `attach`, and then `serve` on its thread.
    """

    name: ClassVar[str]
    device_id: ClassVar[int]
    queue_sizes: ClassVar[tuple[int, ...]]
    """The most entries that each queue can have: powers of two."""
    state: ClassVar[tuple[Field, ...]] = ()
    """What of the device is saved, as fields of an object that has it as `device`."""

    def __init__(self, features: int = 0, config: bytes = b"") -> None:
        self.features, self.config = features, config
        self.driver_features = 0
        """The features of the device that the driver accepted."""
        self.queues: list[Virtqueue] = []

    def attach(
        self, queues: list[Virtqueue], interrupt: Callable[[], None], kick: Callable[[], None]
    ) -> None:
        """Take the queues; `interrupt` tells the driver of used buffers, `kick` asks to serve."""
        self.queues = queues
        self._interrupt, self._kick = interrupt, kick

    def serve(self) -> bool:
        """Do one request; False when there is nothing to do. Raises `DriverError`."""
        raise NotImplementedError

    def give_back(self, queue: Virtqueue, chain: Chain, written: int) -> None:
        """Return a buffer with `written` bytes in it to the driver."""
        if queue.push(chain, written):
            self._interrupt()

    def reset(self) -> None:
        """Forget what belonged to the driver."""

    def problem(self) -> str:
        """What went wrong on the host's side, in words; empty if nothing did."""
        return ""

    def close(self) -> None:
        """Give back what the device holds of the host."""


def total(parts: Iterable[memoryview]) -> int:
    """How many bytes they are together."""
    return sum(map(len, parts))


def split(parts: list[memoryview], size: int) -> tuple[list[memoryview], list[memoryview]]:
    """The first `size` bytes of `parts`, and the rest: drivers may cut a buffer anywhere."""
    first: list[memoryview] = []
    for number, part in enumerate(parts):
        if size < len(part):
            return [*first, part[:size]], [part[size:], *parts[number + 1 :]]
        first.append(part)
        size -= len(part)
    return first, []


def fill(parts: Iterable[memoryview], data: bytes) -> int:
    """Copy `data` into `parts`, one after the other; how much of it there was room for."""
    done = 0
    for part in parts:
        piece = data[done : done + len(part)]
        part[: len(piece)] = piece
        done += len(piece)
    return done
