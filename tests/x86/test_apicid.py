from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu_reference import topology

from cpufw.core.topology import SlotId, Topology, TopologyLevel
from cpufw.errors import TopologyError
from cpufw_x86.apicid import ApicIdLayout, apic_id, slot_of_apic_id

counts = st.integers(min_value=1, max_value=3)
topologies = st.builds(
    topology,
    sockets=counts,
    dies=counts,
    modules=counts,
    cores=st.integers(min_value=1, max_value=9),
    threads=counts,
)


@given(topologies)
def test_every_slot_has_an_id_of_its_own_that_leads_back_to_it(shape: Topology) -> None:
    ids = [apic_id(shape, slot) for slot in shape.slots()]

    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
    assert [slot_of_apic_id(shape, identifier) for identifier in ids] == list(shape.slots())


@given(topologies)
def test_cpus_of_one_unit_share_the_bits_above_its_field(shape: Topology) -> None:
    layout = ApicIdLayout.of(shape)
    for depth, level in enumerate(shape.levels, 1):
        shift = layout.shift(level)
        units = {(slot.ids[:depth], apic_id(shape, slot) >> shift) for slot in shape.slots()}
        assert len(units) == len({ids for ids, _ in units}) == len({bits for _, bits in units})


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (topology(cores=4), [0, 1, 2, 3]),
        (topology(sockets=3), [0, 1, 2]),
        (topology(sockets=2, cores=3), [0, 1, 2, 4, 5, 6]),
        (topology(cores=3, threads=2), [0, 1, 2, 3, 4, 5]),
        (topology(sockets=2, dies=2, cores=3), [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14]),
        (topology(modules=3, cores=1, threads=2), [0, 1, 2, 3, 4, 5]),
    ],
    ids=str,
)
def test_ids_leave_gaps_where_a_count_is_no_power_of_two(
    shape: Topology, expected: list[int]
) -> None:
    assert [apic_id(shape, slot) for slot in shape.slots()] == expected


def test_levels_that_the_machine_lacks_take_no_bits() -> None:
    socket, core = TopologyLevel.SOCKET, TopologyLevel.CORE
    shape = Topology(((socket, 2), (core, 2)), cpus=4)

    assert [apic_id(shape, slot) for slot in shape.slots()] == [0, 1, 2, 3]
    assert slot_of_apic_id(shape, 3) == SlotId((socket, core), (1, 1))


@pytest.mark.parametrize(("identifier", "named"), [(3, "core-id=3"), (8, "socket-id=2")])
def test_id_without_a_slot_is_refused(identifier: int, named: str) -> None:
    with pytest.raises(TopologyError, match=named):
        slot_of_apic_id(topology(sockets=2, cores=3), identifier)


def test_slot_of_another_topology_is_refused() -> None:
    slot = topology(cores=4).slot(3)
    with pytest.raises(TopologyError, match="core-id=3 is out of range"):
        apic_id(topology(cores=2), slot)


def test_level_that_x86_lacks_is_refused() -> None:
    shape = Topology(((TopologyLevel.BOOK, 2), (TopologyLevel.CORE, 1)), cpus=2)
    with pytest.raises(TopologyError, match="no books"):
        ApicIdLayout.of(shape)
