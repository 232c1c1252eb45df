"""A guest's virtio driver over a bytearray of RAM, written from the specification alone.

It knows nothing of the device's code: registers by their offsets (VIRTIO 1.2, 4.2.2), rings by
their layout (2.7).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

NEXT, WRITE, INDIRECT = 1, 2, 4
F_INDIRECT, F_EVENT_IDX, F_VERSION_1 = 1 << 28, 1 << 29, 1 << 32
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128

RAM_START, RAM_SIZE = 0x10_0000, 0x10_0000
BASE = 0xFEB0_0000


class Registers(Protocol):
    def read(self, offset: int, size: int) -> int: ...
    def write(self, offset: int, size: int, value: int) -> None: ...
    def work(self) -> bool: ...


class Ram:
    """RAM from 1 MiB to 2 MiB, as a device sees it; `dirty` is what devices said they wrote."""

    def __init__(self) -> None:
        self.bytes = bytearray(RAM_SIZE)
        self.dirty: list[tuple[int, int]] = []

    def view(self, address: int, size: int) -> memoryview:
        start = address - RAM_START
        if start < 0 or start + size > RAM_SIZE:
            raise LookupError(address)
        return memoryview(self.bytes)[start : start + size]

    def wrote(self, address: int, size: int) -> None:
        self.dirty.append((address, size))

    def is_dirty(self, address: int) -> bool:
        return any(start <= address < start + size for start, size in self.dirty)

    def put(self, address: int, data: bytes) -> None:
        self.view(address, len(data))[:] = data

    def get(self, address: int, size: int) -> bytes:
        return bytes(self.view(address, size))


@dataclass
class Line:
    """An interrupt line; `edges` counts how often it went up."""

    level: bool = False
    edges: int = 0

    def __call__(self, level: bool) -> None:
        self.edges += level and not self.level
        self.level = level


@dataclass
class Queue:
    index: int
    size: int
    table: int
    available: int
    used: int
    offered: int = 0
    seen: int = 0
    free: list[int] = field(default_factory=list)


Part = tuple[int, int, bool]  # address, length, whether the device writes it


class Driver:
    """Drives the device behind `registers` as a guest would; buffers come from `allocate`."""

    def __init__(self, registers: Registers, ram: Ram) -> None:
        self.registers, self.ram = registers, ram
        self.queues: list[Queue] = []
        self.features = 0
        self._next = RAM_START

    def reg(self, offset: int) -> int:
        return self.registers.read(offset, 4)

    def set(self, offset: int, value: int) -> None:
        self.registers.write(offset, 4, value)

    def allocate(self, size: int, alignment: int = 16) -> int:
        self._next = -(-self._next // alignment) * alignment
        start = self._next
        self._next += size
        assert self._next <= RAM_START + RAM_SIZE
        return start

    @property
    def status(self) -> int:
        return self.reg(0x070)

    def offered_features(self) -> int:
        self.set(0x014, 0)
        low = self.reg(0x010)
        self.set(0x014, 1)
        return low | self.reg(0x010) << 32

    def negotiate(self, features: int | None = None) -> bool:
        """Reset, then up to FEATURES_OK (3.1.1, steps 1 to 6); whether the device agrees."""
        self.set(0x070, 0)
        assert self.status == 0
        self.set(0x070, ACKNOWLEDGE)
        self.set(0x070, ACKNOWLEDGE | DRIVER)
        offered = self.offered_features()
        self.features = offered if features is None else features
        for window in (0, 1):
            self.set(0x024, window)
            self.set(0x020, self.features >> 32 * window & 0xFFFF_FFFF)
        self.set(0x070, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        return bool(self.status & FEATURES_OK)

    def set_up_queue(self, index: int, size: int) -> Queue:
        self.set(0x030, index)
        assert self.reg(0x044) == 0
        assert self.reg(0x034) >= size
        queue = Queue(
            index,
            size,
            self.allocate(16 * size),
            self.allocate(6 + 2 * size),
            self.allocate(6 + 8 * size),
            free=list(range(size)),
        )
        for address, bytes_ in ((queue.available, 6 + 2 * size), (queue.used, 6 + 8 * size)):
            self.ram.put(address, bytes(bytes_))
        self.set_addresses(queue)
        self.set(0x038, size)
        self.set(0x044, 1)
        return queue

    def set_addresses(self, queue: Queue) -> None:
        for offset, address in (
            (0x080, queue.table),
            (0x090, queue.available),
            (0x0A0, queue.used),
        ):
            self.set(offset, address & 0xFFFF_FFFF)
            self.set(offset + 4, address >> 32)

    def start(self, features: int | None = None, size: int = 8, queues: int = 1) -> Driver:
        assert self.negotiate(features)
        self.queues = [self.set_up_queue(index, size) for index in range(queues)]
        self.set(0x070, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        return self

    def describe(self, address: int, number: int, part: Part, flags: int, following: int) -> None:
        start, length, writable = part
        data = struct.pack("<QIHH", start, length, flags | WRITE * writable, following)
        self.ram.put(address + 16 * number, data)

    def offer(self, parts: Sequence[Part], queue: int = 0, *, indirect: bool = False) -> int:
        """Make one buffer available, in order of its parts; its head. Does not notify."""
        q = self.queues[queue]
        if indirect:
            table = self.allocate(16 * len(parts))
            for number, part in enumerate(parts):
                last = number == len(parts) - 1
                self.describe(table, number, part, 0 if last else NEXT, 0 if last else number + 1)
            head = q.free.pop(0)
            self.describe(q.table, head, (table, 16 * len(parts), False), INDIRECT, 0)
        else:
            numbers = [q.free.pop(0) for _ in parts]
            head = numbers[0]
            for place, part in enumerate(parts):
                last = place == len(parts) - 1
                following = 0 if last else numbers[place + 1]
                self.describe(q.table, numbers[place], part, 0 if last else NEXT, following)
        self.make_available(q, head)
        return head

    def make_available(self, q: Queue, head: int) -> None:
        self.ram.put(q.available + 4 + 2 * (q.offered % q.size), struct.pack("<H", head))
        q.offered = (q.offered + 1) & 0xFFFF
        self.ram.put(q.available + 2, struct.pack("<H", q.offered))

    def notify(self, queue: int = 0) -> None:
        self.set(0x050, queue)

    def run(self) -> None:
        """Let a device that has no thread work until it has nothing to do."""
        while self.registers.work():
            pass

    def used(self, queue: int = 0) -> list[tuple[int, int]]:
        """The buffers the device gave back since last asked: head and length."""
        q = self.queues[queue]
        (index,) = struct.unpack("<H", self.ram.get(q.used + 2, 2))
        found = []
        while q.seen != index:
            entry = self.ram.get(q.used + 4 + 8 * (q.seen % q.size), 8)
            found.append(struct.unpack("<II", entry))
            q.seen = (q.seen + 1) & 0xFFFF
        return found
