"""Topologies: what -smp means, and the slots it makes."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.core.topology import Topology, TopologyLevel, build_topology, parse_smp
from cpufw.errors import TopologyError

X86 = (
    TopologyLevel.SOCKET,
    TopologyLevel.DIE,
    TopologyLevel.MODULE,
    TopologyLevel.CORE,
    TopologyLevel.THREAD,
)


@pytest.mark.parametrize(
    ("text", "cpus", "counts"),
    [
        ("4", 4, (1, 1, 1, 4, 1)),
        ("2,maxcpus=8", 2, (1, 1, 1, 8, 1)),
        ("cpus=2,maxcpus=8,sockets=2", 2, (2, 1, 1, 4, 1)),
        ("1,maxcpus=8,cores=2,threads=2", 1, (2, 1, 1, 2, 2)),
        ("1,maxcpus=8,sockets=2,cores=2", 1, (2, 1, 1, 2, 2)),
        ("1,maxcpus=16,sockets=1,dies=2,modules=2,cores=2,threads=2", 1, (1, 2, 2, 2, 2)),
        ("sockets=2,cores=3", 6, (2, 1, 1, 3, 1)),
        ("8,drawers=1", 8, (1, 1, 1, 8, 1)),
    ],
)
def test_missing_counts_are_filled_as_qemu_does(
    text: str, cpus: int, counts: tuple[int, ...]
) -> None:
    topology = parse_smp(text, X86, 1024)
    assert (topology.cpus, tuple(count for _, count in topology.counts)) == (cpus, counts)
    assert parse_smp(str(topology), X86, 1024) == topology


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("4,maxcpus=2", "maxcpus (2) must be at least cpus (4)"),
        ("1,maxcpus=6,sockets=2,cores=2,threads=1", "is 4, which must equal maxcpus (6)"),
        ("1,maxcpus=4,sockets=3", "which must equal maxcpus (4)"),
        ("2,sockets=3", "is 3, which must equal maxcpus (2)"),
        ("1,cores=2", "is 2, which must equal maxcpus (1)"),
        ("0", "cpus=0 must be at least 1"),
        ("1,maxcpus=0", "maxcpus=0 must be at least 1"),
        ("1,cores=0", "cores=0 must be at least 1"),
        ("1,maxcpus=2,clusters=2", "has no clusters"),
        ("2000", "2000 CPUs exceed this machine's maximum of 1024"),
        ("one", "cpus=one is not a whole number"),
        ("-1", "cpus=-1 is not a whole number"),
        ("", "cpus= is not a whole number"),
        ("1,maxcpus=٣", "is not a whole number"),
        ("1,maxcpus=" + "9" * 5000, "exceed"),
        ("1,cores", "'cores' needs a value"),
        ("1,koers=2", "'koers' is not one of cpus, maxcpus"),
        ("1,cores=2,cores=2", "'cores' is given twice"),
        ("1,cpus=2", "'cpus' is given twice"),
    ],
)
def test_counts_that_do_not_fit_are_refused(text: str, says: str) -> None:
    with pytest.raises(TopologyError) as caught:
        parse_smp(text, X86, 1024)
    assert says in str(caught.value)
    assert str(caught.value).startswith("--smp: ")


@given(st.text(alphabet="0123456789,=cpusmaxocrethd-", max_size=40))
def test_any_text_makes_a_sound_topology_or_a_clear_error(text: str) -> None:
    try:
        topology = parse_smp(text, X86, 64)
    except TopologyError:
        return
    assert 1 <= topology.cpus <= topology.max_cpus <= 64
    assert prod(count for _, count in topology.counts) == topology.max_cpus


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    counts = {level.plural: draw(st.integers(1, 4)) for level in X86}
    return build_topology(counts, X86, 4**5)


@given(topologies())
def test_slots_are_numbered_without_gaps_threads_fastest(topology: Topology) -> None:
    slots = list(topology.slots())
    assert len(slots) == topology.max_cpus == topology.cpus
    assert [topology.index(slot) for slot in slots] == list(range(len(slots)))
    assert [topology.slot(index) for index in range(len(slots))] == slots
    assert slots == sorted(slots, key=lambda slot: slot.ids)
    for level in X86:
        inside = sum(slot[level] == 0 for slot in slots if all(
            slot[outer] == 0 for outer in X86[: X86.index(level)]))  # fmt: skip
        assert topology.threads_per(level) == inside


@pytest.mark.parametrize("index", [-1, 4])
def test_a_slot_beyond_the_topology_is_refused(index: int) -> None:
    with pytest.raises(TopologyError, match="this topology has 4 slots"):
        parse_smp("4", X86, 1024).slot(index)


def test_a_slot_names_its_place() -> None:
    slot = parse_smp("1,maxcpus=8,sockets=2,cores=2,threads=2", X86, 1024).slot(5)
    assert slot.props() == {
        "socket-id": 1,
        "die-id": 0,
        "module-id": 0,
        "core-id": 0,
        "thread-id": 1,
    }
    assert str(slot) == "socket-id=1, die-id=0, module-id=0, core-id=0, thread-id=1"
    assert slot.get(TopologyLevel.CLUSTER) == 0
