"""Guest RAM as virtio devices see it on a PC: pieces, their edges, and the dirty log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cpufw.kvm import GuestMemory
from cpufw_x86.devices.virtio import RamAccess

PAGE = 0x1000
HIGH = 0x1_0000_0000


@pytest.fixture
def blocks() -> Iterator[list[tuple[int, GuestMemory]]]:
    made = [(0, GuestMemory(4 * PAGE)), (HIGH, GuestMemory(2 * PAGE))]
    yield made
    for _, memory in made:
        memory.close()


@pytest.fixture
def ram(blocks: list[tuple[int, GuestMemory]]) -> Iterator[RamAccess]:
    access = RamAccess(blocks)
    yield access
    access.close()


def test_views_share_each_piece(ram: RamAccess, blocks: list[tuple[int, GuestMemory]]) -> None:
    ram.view(PAGE - 1, 2)[:] = b"ab"
    ram.view(HIGH + 2 * PAGE - 1, 1)[:] = b"c"
    assert blocks[0][1].read(PAGE - 1, 2) == b"ab"
    assert blocks[1][1].read(2 * PAGE - 1, 1) == b"c"


@pytest.mark.parametrize(
    ("address", "size"),
    [(4 * PAGE - 1, 2), (4 * PAGE, 1), (HIGH - 1, 2), (HIGH + 2 * PAGE - 1, 2), (1 << 63, 1)],
)
def test_what_is_not_all_ram_has_no_view(ram: RamAccess, address: int, size: int) -> None:
    with pytest.raises(LookupError):
        ram.view(address, size)


def test_what_devices_write_is_in_the_dirty_log(
    ram: RamAccess, blocks: list[tuple[int, GuestMemory]]
) -> None:
    for _, memory in blocks:
        memory.log_writes(True)
    ram.wrote(2 * PAGE - 1, 2)
    ram.wrote(HIGH + PAGE, PAGE)
    assert blocks[0][1].take_written() == bytes([0b0110])
    assert blocks[1][1].take_written() == bytes([0b10])
    assert blocks[1][1].take_written() == bytes([0])
