"""The memory map: every byte of RAM in it once, and the ACPI tables in RAM."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cpufw.errors import UsageError
from cpufw_x86.memory_map import (
    GIB,
    HIGH_MEMORY,
    HOLE_END,
    HOLE_START,
    MIB,
    PAGE,
    MemoryMap,
    MemoryType,
    pack_e820,
)

sizes = st.integers(HIGH_MEMORY // PAGE, 64 * GIB // PAGE).map(lambda pages: pages * PAGE)


@given(sizes, st.integers(0, 64 << 10), st.sampled_from([0, 128 << 10, 16 * MIB]))
@example(HIGH_MEMORY, 0x1_F000, 0)
@example(HIGH_MEMORY + PAGE, PAGE, 0)
@example(HOLE_START, PAGE, 0)
@example(HOLE_START + PAGE, 1, 0)
def test_ranges_are_in_order_and_cover_all_ram(ram: int, acpi: int, firmware: int) -> None:
    memory_map = MemoryMap(ram, acpi, firmware)
    ranges = memory_map.e820()
    for first, second in pairwise(ranges):
        assert first.end <= second.address
    assert all(each.size > 0 for each in ranges)
    covered = [each for each in ranges if memory_map.has_ram(each.address, each.size)]
    assert sum(each.size for each in covered) == ram
    for each in ranges:
        if each.type is not MemoryType.RESERVED:
            assert memory_map.has_ram(each.address, each.size)


@given(sizes, st.integers(1, 64 << 10))
def test_acpi_tables_are_in_ram_that_is_not_offered(ram: int, acpi: int) -> None:
    memory_map = MemoryMap(ram, acpi)
    assert memory_map.acpi_address % PAGE == 0
    assert memory_map.has_ram(memory_map.acpi_address, acpi)
    rsdp, tables = memory_map.acpi_ranges()
    assert not (rsdp.start < tables.stop and tables.start < rsdp.stop)
    for place in (rsdp, tables):
        for each in memory_map.e820():
            if each.type is MemoryType.RAM:
                assert each.end <= place.start or place.stop <= each.address
    if ram >= 2 * MIB:
        (where,) = (r for r in memory_map.e820() if r.type is MemoryType.ACPI)
        assert where.address <= tables.start < tables.stop <= where.end


@given(sizes, st.integers(0, 64 << 10), st.integers(HIGH_MEMORY + 1, HOLE_START // 2))
def test_needed_memory_is_enough_and_less_is_not(ram: int, acpi: int, end: int) -> None:
    needed = MemoryMap(ram, acpi).needed(end)
    assert MemoryMap(needed * MIB, acpi).usable_end >= end
    if needed > 1:
        assert MemoryMap((needed - 1) * MIB, acpi).usable_end < end


def test_ram_leaves_the_holes_free() -> None:
    memory_map = MemoryMap(4 * GIB)
    assert memory_map.has_ram(0, HOLE_START)
    assert memory_map.has_ram(HOLE_END, GIB)
    assert not memory_map.has_ram(HOLE_START, 1)
    assert not memory_map.has_ram(HOLE_START - 1, 2)
    assert not memory_map.has_ram(HOLE_END + GIB, 1)
    assert not memory_map.has_ram(-1, 1)


def test_firmware_is_reserved_up_to_4_gib() -> None:
    last = MemoryMap(16 * MIB, 0, 256 << 10).e820()[-1]
    assert (last.address, last.end, last.type) == (0xFFFC_0000, HOLE_END, MemoryType.RESERVED)


def test_tables_that_do_not_fit_say_how_much_memory_they_need() -> None:
    tables = 1 * MIB
    with pytest.raises(UsageError, match="give the guest at least 2M") as caught:
        MemoryMap(HIGH_MEMORY, tables)
    assert "no room for 1048576 bytes of ACPI tables" in str(caught.value)
    assert MemoryMap(2 * MIB, tables).acpi_address == HIGH_MEMORY


def test_the_packed_map_is_what_int_15h_returns() -> None:
    packed = pack_e820(MemoryMap(16 * MIB).e820())
    assert struct.unpack_from("<QQI", packed) == (0, 0x9_FC00, 1)
    assert struct.unpack_from("<QQI", packed, 20) == (0x9_FC00, 0x6_0400, 2)
    assert struct.unpack_from("<QQI", packed, 40) == (HIGH_MEMORY, 15 * MIB, 1)
