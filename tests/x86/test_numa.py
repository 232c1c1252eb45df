"""`--numa`: which memory and CPUs a node gets, and what is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.core.topology import parse_smp
from cpufw.errors import UsageError
from cpufw_x86.apicid import X86_LEVELS
from cpufw_x86.numa import NumaLayout, parse_numa

MIB, GIB = 1 << 20, 1 << 30
TWO_SOCKETS = "1,maxcpus=4,sockets=2,cores=2"


def layout(*options: str, smp: str = TWO_SOCKETS, memory: int = 128 * MIB) -> NumaLayout:
    result = parse_numa(options, parse_smp(smp, X86_LEVELS, 1024), memory)
    assert result is not None
    return result


def sizes(numa: NumaLayout) -> list[int]:
    return [node.memory // MIB for node in numa.nodes]


def test_no_option_no_numa() -> None:
    assert parse_numa((), parse_smp("1", X86_LEVELS, 1), MIB) is None


def test_the_machine_of_qemus_transcript() -> None:
    """`-numa cpu,node-id=N,socket-id=N` as in QEMU 10: props of each slot, in CPU order."""
    numa = layout(
        "node,nodeid=0,mem=64M",
        "node,nodeid=1,mem=64",
        "cpu,node-id=0,socket-id=0",
        "cpu,node-id=1,socket-id=1",
    )
    assert numa.slots == (0, 0, 1, 1)
    assert [list(node.ranges) for node in numa.nodes] == [
        [range(64 * MIB)],
        [range(64 * MIB, 128 * MIB)],
    ]
    assert numa.distances == ((10, 20), (20, 10))
    assert numa.warnings == ()


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        (("node", "node"), (0, 0, 1, 1)),
        (("node",), (0, 0, 0, 0)),
        (("node,cpus=3,cpus=0-1", "node,cpus=2"), (0, 0, 1, 0)),
        (("cpu,node-id=1,core-id=0", "cpu,node-id=0,core-id=1", "node", "node"), (1, 0, 1, 0)),
        (("node", "node", "cpu,node-id=1,socket-id=0,core-id=1"), (0, 1, 1, 1)),
    ],
)
def test_cpus_go_where_they_are_told_or_by_socket(
    options: tuple[str, ...], slots: tuple[int, ...]
) -> None:
    assert layout(*options).slots == slots


def test_sockets_go_round_robin_over_fewer_nodes() -> None:
    assert layout("node", "node", smp="5,sockets=5").slots == (0, 1, 0, 1, 0)


def test_a_cpu_that_some_options_forgot_is_named() -> None:
    numa = layout("node,cpus=0-1", "node,cpus=3")
    assert numa.slots == (0, 0, 1, 1)
    assert len(numa.warnings) == 1
    assert "CPU 2 is in no node" in numa.warnings[0]


@pytest.mark.parametrize(
    ("nodes", "memory", "expected"), [(1, 128, [128]), (2, 129, [64, 65]), (3, 128, [42, 42, 44])]
)
def test_without_mem_nodes_share(nodes: int, memory: int, expected: list[int]) -> None:
    assert sizes(layout(*["node"] * nodes, memory=memory * MIB)) == expected


def test_memory_goes_around_the_hole_below_4_gib() -> None:
    numa = layout("node,mem=2G", "node,mem=2G", "node,mem=1G", memory=5 * GIB)
    assert [list(node.ranges) for node in numa.nodes] == [
        [range(2 * GIB)],
        [range(2 * GIB, 3 * GIB), range(4 * GIB, 5 * GIB)],
        [range(5 * GIB, 6 * GIB)],
    ]


def test_a_node_may_have_cpus_only() -> None:
    numa = layout("node,mem=128M", "node,mem=0")
    assert numa.nodes[1].ranges == ()


@pytest.mark.parametrize(
    ("distances", "table"),
    [
        (("src=0,dst=1,val=31",), ((10, 31), (31, 10))),
        (("src=1,dst=0,val=31",), ((10, 31), (31, 10))),
        (("src=0,dst=1,val=31", "src=1,dst=0,val=255"), ((10, 31), (255, 10))),
        (("src=0,dst=0,val=10", "src=0,dst=1,val=11"), ((10, 11), (11, 10))),
    ],
)
def test_distances(distances: tuple[str, ...], table: tuple[tuple[int, ...], ...]) -> None:
    assert layout("node", "node", *(f"dist,{each}" for each in distances)).distances == table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("nodes",), "'nodes' is not one of node, cpu, dist"),
        (("cpu,node-id=0,socket-id=0",), "no node 0; define it with --numa node,nodeid=0"),
        (("node", "node,nodeid=0"), "node 0 is given twice"),
        (("node", "node,nodeid=2"), "node 1 is missing: the numbers of 2 nodes must be 0 to 1"),
        (("node,nodeid=128",), "there can be 128 nodes"),
        (("node,nodeid=x",), "nodeid=x is not a whole number"),
        (("node,nodeid=" + "9" * 5000,), "is not a whole number"),
        (("node,nodeid",), "'nodeid' is not of the form name=value"),
        (("node,nodeid=0,nodeid=0",), "'nodeid' is given twice"),
        (("node,cpus=0-9",), "CPU 9 is too high, maxcpus is 4"),
        (("node,cpus=3-1",), "cpus=3-1 ends before it begins"),
        (("node,cpus=0,colour=red",), "'colour' is not one of nodeid, cpus, mem"),
        (("node,memdev=m0",), "memory back ends are not supported"),
        (("node,cpus=0-1", "node,cpus=1-3"), "CPU 1 is in node 0 already"),
        (("node,mem=64M", "node,mem=32M"), "96 MiB together, but the machine has 128 MiB"),
        (("node,mem=64M", "node"), "64 MiB together"),
        (("node,mem=lots",), "memory size 'lots' is not valid"),
        (("node,mem=" + "9" * 5000,), "memory size '9+' is not valid"),
        (("node,mem=1K", "node,mem=131071K"), "no multiple of 4K"),
        (("node", "cpu,socket-id=0"), "needs node-id="),
        (("node", "cpu,node-id=0"), "names no CPU"),
        (("node", "cpu,node-id=0,socket-id=7"), "no CPU of .* matches"),
        (("node", "cpu,node-id=0,book-id=1"), "'book-id' is not one of node-id, socket-id"),
        (("node", "node", "dist,src=0,dst=2,val=20"), "there is no node 2"),
        (("node", "node", "dist,src=0,dst=1,val=9"), "val=9 is not from 10 to 255"),
        (("node", "node", "dist,src=0,dst=1,val=256"), "val=256 is not from 10 to 255"),
        (("node", "node", "dist,src=1,dst=1,val=11"), "distance to itself is 10"),
        (("node", "node", "dist,src=1,dst=0"), "needs val="),
        (
            ("node", "node", "node", "dist,src=0,dst=1,val=15"),
            "from node 0 to node 2 is missing",
        ),
        (
            (
                *("node",) * 3,
                "dist,src=0,dst=1,val=15",
                "dist,src=1,dst=0,val=16",
                "dist,src=0,dst=2,val=17",
                "dist,src=1,dst=2,val=17",
            ),
            "from node 2 to node 0 is missing.*both directions",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(options: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        layout(*options)


@given(
    shares=st.lists(st.integers(0, 3 << 20), min_size=1, max_size=8).filter(sum),
    sockets=st.integers(1, 9),
)
def test_every_byte_and_every_slot_is_in_exactly_one_node(shares: list[int], sockets: int) -> None:
    memory = sum(shares) * 4096
    options = [f"node,mem={share * 4}K" for share in shares]
    numa = layout(*options, smp=f"{sockets},sockets={sockets}", memory=memory)
    areas = [area for node in numa.nodes for area in node.ranges]
    assert all(a.stop <= b.start for a, b in itertools.pairwise(areas))
    assert sum(map(len, areas)) == memory
    assert not any(a.start < 4 * GIB and a.stop > 3 * GIB for a in areas)
    assert [node.memory for node in numa.nodes] == [share * 4096 for share in shares]
    assert len(numa.slots) == sockets
    assert all(node in range(len(shares)) for node in numa.slots)
