"""Guests that write anything anywhere: a device may break, and nothing else may happen."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from guest_driver import (
    BASE,
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
from hypothesis import given, settings
from hypothesis import strategies as st

from cpufw.chardev import SinkChardev
from cpufw.virtio import (
    BlockDevice,
    ConsoleDevice,
    EntropyDevice,
    RawImage,
    VirtioDevice,
    VirtioMmio,
)

IMAGE_SIZE = 64 * 512
DEVICES = ("blk", "console", "rng")
QUEUES = {"blk": 1, "console": 2, "rng": 1}

REGISTERS = [*range(0, 0x100, 4), 0x100, 0x1FC]
registers = st.one_of(st.sampled_from(REGISTERS), st.integers(0, 0x1FF))
sizes = st.sampled_from([4, 4, 4, 1, 2, 8])
numbers = st.one_of(
    st.integers(0, 16),
    st.sampled_from([1, 0xF, 0x40, 0x80, 0xFFFF_FFFF, RAM_START, RAM_START + RAM_SIZE - 16]),
    st.integers(0, 0xFFFF_FFFF),
)
accesses = st.tuples(registers, sizes, st.none() | numbers)

addresses = st.one_of(
    st.integers(RAM_START + 0x8000, RAM_START + RAM_SIZE),
    st.sampled_from([0, RAM_START, RAM_START + 0x2000, BASE, (1 << 64) - 1]),
)
lengths = st.sampled_from([0, 1, 15, 16, 17, 20, 32, 511, 512, 513, 4096, 1 << 20, 0xFFFF_FFFF])
flags = st.sampled_from([0, NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | NEXT, 0xFFFF])
descriptors = st.tuples(addresses, lengths, flags, st.integers(0, 9))
tables = st.lists(descriptors, min_size=8, max_size=8)
heads = st.lists(st.integers(0, 9), min_size=1, max_size=10)


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[[str], VirtioDevice]]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "disk.raw"
        path.write_bytes(bytes(IMAGE_SIZE))

        def device(name: str) -> VirtioDevice:
            match name:
                case "blk":
                    return BlockDevice(RawImage(str(path)))
                case "console":
                    return ConsoleDevice(SinkChardev(len), print)
            return EntropyDevice()

        yield device
        assert path.stat().st_size == IMAGE_SIZE


def check(device: VirtioMmio, line: Line) -> None:
    assert line.level == (device.interrupt_status != 0)
    assert bool(device.broken) == bool(device.read(0x070, 4) & NEEDS_RESET)
    assert "internal error" not in device.broken


@pytest.mark.parametrize("name", DEVICES)
@settings(max_examples=60)
@given(script=st.lists(accesses, max_size=60), image=st.binary(max_size=512))
def test_any_register(
    make: Callable[[str], VirtioDevice],
    name: str,
    script: list[tuple[int, int, int | None]],
    image: bytes,
) -> None:
    ram, line = Ram(), Line()
    ram.put(RAM_START, image)
    device = VirtioMmio(make(name), BASE, ram, line)
    try:
        for offset, size, value in script:
            if value is None:
                assert 0 <= device.read(offset, size) < 1 << 8 * size
            else:
                device.write(offset, size, value & (1 << 8 * size) - 1)
            for _ in range(300):
                if not device.work():
                    break
            check(device, line)
        device.reset()
        assert device.read(0x070, 4) == 0
    finally:
        device.close()


@pytest.mark.parametrize("name", DEVICES)
@settings(max_examples=120)
@given(
    table=tables,
    inner=tables,
    available=heads,
    index=st.none() | st.integers(0, 0xFFFF),
    event=st.booleans(),
)
def test_any_ring(
    make: Callable[[str], VirtioDevice],
    name: str,
    table: list[tuple[int, int, int, int]],
    inner: list[tuple[int, int, int, int]],
    available: list[int],
    index: int | None,
    event: bool,
) -> None:
    """A table of descriptors, another where they may find an indirect one, and heads in them."""
    ram, line = Ram(), Line()
    device = VirtioMmio(make(name), BASE, ram, line)
    try:
        driver = Driver(device, ram).start(1 << 32 | 1 << 28 | event << 29, queues=QUEUES[name])
        for each, start in ((inner, RAM_START + 0x2000),):
            ram.put(start, b"".join(struct.pack("<QIHH", *row) for row in each))
        for queue in driver.queues:
            ram.put(queue.table, b"".join(struct.pack("<QIHH", *row) for row in table))
            ring = b"".join(struct.pack("<H", head) for head in available[:8])
            ram.put(queue.available + 4, ring)
            count = len(available) if index is None else index
            ram.put(queue.available + 2, struct.pack("<H", count))
        for _ in range(100):
            if not device.work():
                break
        else:
            pytest.fail("it never ends")
        check(device, line)
        # After a reset it is as good as new.
        device.reset()
        assert Driver(device, ram).negotiate()
    finally:
        device.close()
