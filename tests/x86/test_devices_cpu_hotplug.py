"""The CPU hot-plug register block, as a guest and a machine use it.

The expectations come from QEMU's docs/specs/acpi_cpu_hotplug, section by section.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.errors import HotplugError, StateError
from cpufw_x86.devices import CpuHotplugBlock

SELECTOR, DATA2, FLAGS, COMMAND, DATA = 0, 0, 4, 5, 8
ENABLED, INSERT, REMOVE, EJECT, FIRMWARE = 1, 2, 4, 8, 16
NEXT, OST_EVENT, OST_STATUS, ARCH_ID = range(4)
ARCH_IDS = (0, 1, 4, 5, 0x1_0000_0008)  # sparse, and one above 32 bits


class Machine:
    """Records what the block tells the machine."""

    def __init__(self, arch_ids: Sequence[int] = ARCH_IDS) -> None:
        self.heard: list[tuple[object, ...]] = []
        self.block = CpuHotplugBlock(
            arch_ids,
            raise_gpe=lambda bit: self.heard.append(("gpe", bit)),
            on_ost=lambda slot, event, status: self.heard.append(("ost", slot, event, status)),
            on_eject=lambda slot: self.heard.append(("eject", slot)),
        )
        self.block.set_enabled(0, True)

    def select(self, slot: int) -> None:
        self.block.write(SELECTOR, 4, slot)

    def command(self, command: int) -> None:
        self.block.write(COMMAND, 1, command)

    def flags(self) -> int:
        return self.block.read(FLAGS, 1)

    def next_with_event(self) -> int | None:
        """The specification's "Get a cpu with pending event"."""
        self.select(0)
        self.command(NEXT)
        return self.block.read(DATA, 4) if self.flags() & (INSERT | REMOVE) else None


def test_guest_detects_the_modern_interface() -> None:
    machine = Machine()
    machine.select(0)
    machine.command(NEXT)
    assert machine.block.read(DATA2, 4) == 0


def test_guest_counts_the_slots_and_the_enabled_ones() -> None:
    machine = Machine()
    machine.block.set_enabled(3, True)
    machine.select(0)
    machine.command(NEXT)
    slot, enabled = 0, 0
    while True:  # "Enumerate CPUs present/non present CPUs"
        enabled += machine.flags() & ENABLED
        slot += 1
        machine.select(slot)
        if machine.block.read(DATA, 4) == 0:
            break
    assert (slot, enabled) == (len(ARCH_IDS), 2)


@pytest.mark.parametrize("slot", range(len(ARCH_IDS)))
def test_arch_id_is_read_in_two_halves(slot: int) -> None:
    machine = Machine()
    machine.command(ARCH_ID)
    machine.select(slot)
    low, high = machine.block.read(DATA, 4), machine.block.read(DATA2, 4)
    assert high << 32 | low == ARCH_IDS[slot]


def test_plug_is_an_event_until_the_guest_clears_it() -> None:
    machine = Machine()
    machine.block.request_insert(2)
    assert machine.heard == [("gpe", 2)]
    assert machine.next_with_event() == 2
    assert machine.flags() == ENABLED | INSERT
    machine.block.write(FLAGS, 1, INSERT)
    assert machine.flags() == ENABLED
    assert machine.next_with_event() is None
    assert machine.heard == [("gpe", 2)]


def test_unplug_is_a_request_the_guest_ends_by_ejecting() -> None:
    machine = Machine()
    machine.block.set_enabled(3, True)
    machine.block.request_remove(3)
    assert machine.next_with_event() == 3
    assert machine.flags() == ENABLED | REMOVE
    machine.block.write(FLAGS, 1, REMOVE)
    assert machine.flags() == ENABLED, "the CPU stays until it is ejected"
    assert machine.heard == [("gpe", 2)]
    machine.block.write(FLAGS, 1, EJECT)
    assert machine.heard[1:] == [("eject", 3)]
    assert machine.flags() == 0


def test_linux_order_of_an_unplug() -> None:
    machine = Machine()
    machine.block.set_enabled(1, True)
    machine.block.request_remove(1)
    machine.next_with_event()
    machine.block.write(FLAGS, 1, REMOVE)
    for step in ((3, 0x84), None, (3, 0)):
        machine.select(1)
        if step is None:
            machine.block.write(FLAGS, 1, EJECT)
            continue
        for command, value in zip((OST_EVENT, OST_STATUS), step, strict=True):
            machine.command(command)
            machine.block.write(DATA, 4, value)
    assert machine.heard[1:] == [("ost", 1, 3, 0x84), ("eject", 1), ("ost", 1, 3, 0)]
    assert machine.block.last_ost(1) == (3, 0)
    assert machine.block.last_ost(2) == (0, 0)


def test_ost_event_alone_tells_nobody() -> None:
    machine = Machine()
    machine.command(OST_EVENT)
    machine.block.write(DATA, 4, 1)
    assert machine.heard == []


@pytest.mark.parametrize("slot", [0, 2], ids=["boot CPU", "empty slot"])
@pytest.mark.parametrize("bit", [EJECT, FIRMWARE])
def test_eject_of_what_cannot_be_ejected_is_ignored(slot: int, bit: int) -> None:
    machine = Machine()
    machine.select(slot)
    before = machine.flags()
    machine.block.write(FLAGS, 1, bit)
    assert machine.heard == []
    assert machine.flags() == before


def test_guest_may_eject_without_being_asked() -> None:
    machine = Machine()
    machine.block.set_enabled(1, True)
    machine.select(1)
    machine.block.write(FLAGS, 1, EJECT)
    assert machine.heard == [("eject", 1)]


def test_ejection_by_firmware_is_handed_over_then_done() -> None:
    machine = Machine()
    machine.block.set_enabled(1, True)
    machine.select(1)
    machine.block.write(FLAGS, 1, FIRMWARE)
    assert machine.flags() == ENABLED | FIRMWARE
    machine.block.write(FLAGS, 1, EJECT)
    assert machine.flags() == 0
    assert machine.heard == [("eject", 1)]


@pytest.mark.parametrize(
    ("start", "events", "found"),
    [
        (0, (2, 4), 2),
        (2, (2, 4), 2),
        (3, (2, 4), 4),
        (3, (1,), 1),  # round the end
        (4, (), 4),  # nothing: the selector stays
    ],
)
def test_next_with_event_searches_from_the_selector_round(
    start: int, events: tuple[int, ...], found: int
) -> None:
    machine = Machine()
    for slot in events:
        machine.block.request_insert(slot)
    machine.select(start)
    machine.command(NEXT)
    assert machine.block.read(DATA, 4) == found


@pytest.mark.parametrize("selector", [len(ARCH_IDS), 0xFFFF_FFFF])
def test_with_a_selector_out_of_range_the_block_is_dead_until_it_is_valid(selector: int) -> None:
    machine = Machine()
    machine.block.set_enabled(1, True)
    machine.command(ARCH_ID)
    machine.select(selector)
    assert [machine.block.read(o, s) for o, s in ((0, 4), (4, 1), (8, 4))] == [0, 0, 0]
    machine.command(OST_STATUS)
    machine.block.write(DATA, 4, 7)
    machine.block.write(FLAGS, 1, EJECT)
    assert machine.heard == []
    machine.select(1)
    assert machine.flags() == ENABLED
    assert machine.block.read(DATA, 4) == ARCH_IDS[1], "the command register kept its value"


def test_reserved_registers_and_other_sizes_read_0() -> None:
    machine = Machine()
    machine.block.request_insert(2)
    machine.select(2)
    machine.block.write(COMMAND, 1, ARCH_ID)
    answered = {
        (offset, size)
        for offset in range(12)
        for size in (1, 2, 4)
        if machine.block.read(offset, size)
    }
    assert answered == {(FLAGS, 1), (DATA, 4)}  # data 2 is 0 for this id


def test_reserved_command_reads_0() -> None:
    machine = Machine()
    machine.select(2)
    machine.command(9)
    assert machine.block.read(DATA, 4) == 0
    assert machine.block.read(DATA2, 4) == 0


def test_remove_request_can_be_withdrawn_until_the_guest_sees_it() -> None:
    machine = Machine()
    machine.block.set_enabled(1, True)
    machine.block.request_remove(1)
    assert machine.block.cancel_remove(1)
    assert machine.next_with_event() is None
    machine.block.request_remove(1)
    machine.next_with_event()
    machine.block.write(FLAGS, 1, REMOVE)
    assert not machine.block.cancel_remove(1)


def test_undoing_a_plug_takes_its_event_back() -> None:
    machine = Machine()
    machine.block.request_insert(1)
    machine.block.set_enabled(1, False)
    assert machine.next_with_event() is None


def test_state_goes_on_in_another_machine() -> None:
    machine, other = Machine(), Machine()
    machine.block.request_insert(2)
    machine.block.request_insert(3)
    machine.block.request_remove(3)
    machine.select(3)
    machine.command(OST_STATUS)
    machine.block.write(DATA, 4, 0x84)
    CpuHotplugBlock.vmstate.load(other.block, CpuHotplugBlock.vmstate.save(machine.block))
    assert other.heard == [], "the general-purpose event is the other device's state"
    assert other.flags() == ENABLED | INSERT | REMOVE, "slot 3 is still selected"
    other.block.write(DATA, 4, 1)
    assert other.heard == [("ost", 3, 0, 1)], "and so is the command"
    assert machine.block.last_ost(3) == (0, 0x84)
    assert other.next_with_event() == 2


def test_state_of_a_machine_with_other_slots_is_refused() -> None:
    machine, other = Machine(), Machine((0, 1))
    with pytest.raises(StateError, match="has 5 items, expected 2"):
        CpuHotplugBlock.vmstate.load(other.block, CpuHotplugBlock.vmstate.save(machine.block))
    assert other.flags() == ENABLED


def test_after_a_reset_plugged_cpus_are_no_news() -> None:
    machine = Machine()
    machine.block.request_insert(2)
    machine.block.request_insert(3)
    machine.block.request_remove(3)
    machine.block.reset()
    assert machine.block.flags(2) == ENABLED
    assert machine.next_with_event() == 3
    assert machine.flags() == ENABLED | REMOVE


def test_machine_mistakes_are_named() -> None:
    block = Machine().block
    with pytest.raises(HotplugError, match="slot 1 is empty"):
        block.request_remove(1)
    for slot in (-1, 5):
        with pytest.raises(HotplugError, match=f"slot {slot} does not exist; slots are 0..4"):
            block.request_insert(slot)


def test_callbacks_may_use_the_block() -> None:
    """The machine plugs a CPU again as soon as the guest has ejected it: no deadlock."""
    block: CpuHotplugBlock = CpuHotplugBlock(
        ARCH_IDS,
        raise_gpe=lambda _bit: None,
        on_ost=lambda *_report: None,
        on_eject=lambda slot: block.request_insert(slot),
    )
    block.request_insert(1)
    block.write(SELECTOR, 4, 1)
    guest = threading.Thread(target=lambda: block.write(FLAGS, 1, EJECT), daemon=True)
    guest.start()
    guest.join(5)
    assert not guest.is_alive()
    assert block.read(FLAGS, 1) == ENABLED | INSERT


ACCESSES = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from((1, 2, 4)), st.integers(0, 20)), max_size=40
)


@given(accesses=ACCESSES)
def test_no_guest_can_break_the_block(accesses: list[tuple[int, int, int]]) -> None:
    machine = Machine()
    machine.block.request_insert(1)
    for offset, size, value in accesses:
        machine.block.write(offset, size, value)
        assert 0 <= machine.block.read(offset, size) < 1 << 8 * size
    assert machine.block.flags(0) == ENABLED, "the boot CPU stays"
    for slot in range(1, len(ARCH_IDS)):
        flags = machine.block.flags(slot)
        assert flags & ENABLED or not flags, "an empty slot has no event"
    assert [entry for entry in machine.heard if entry[0] == "eject"] in ([], [("eject", 1)])
