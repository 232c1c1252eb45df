"""NUMA nodes: which memory and which CPUs are near each other. QEMU's `-numa` and its rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from cpufw.core.topology import SlotId, Topology, TopologyLevel
from cpufw.errors import UsageError
from cpufw_x86.memory import parse_size
from cpufw_x86.memory_map import HOLE_END, HOLE_START

MAX_NODES = 128
LOCAL_DISTANCE, REMOTE_DISTANCE, UNREACHABLE = 10, 20, 255  # ACPI 6.5, 5.2.17

_MIB = 1 << 20
_PAGE = 0x1000


@dataclass(frozen=True)
class NumaNode:
    """A node: its number, and its memory as ranges of guest-physical addresses."""

    id: int
    ranges: tuple[range, ...]

    @property
    def memory(self) -> int:
        """Bytes of memory."""
        return sum(map(len, self.ranges))


@dataclass(frozen=True)
class NumaLayout:
    """The nodes of a machine.

    nodes      in order of their numbers, which have no gaps
    slots      the node of each CPU slot, by CPU index
    distances  `distances[from][to]`: 10 is local, 255 cannot be reached
    warnings   sentences for the user
    """

    nodes: tuple[NumaNode, ...]
    slots: tuple[int, ...]
    distances: tuple[tuple[int, ...], ...]
    warnings: tuple[str, ...] = ()


def parse_numa(options: Sequence[str], topology: Topology, memory: int) -> NumaLayout | None:
    """The layout that `--numa` options describe for `memory` bytes; None without any.

    - `node[,nodeid=N][,cpus=A[-B]]...[,mem=SIZE]`; without `mem` at any node, all get the same;
    - `cpu,node-id=N[,socket-id=S][,die-id=D][,core-id=C][,thread-id=T]`: all CPUs that match;
    - `dist,src=A,dst=B,val=V`; one direction is enough if no pair differs by direction.

    CPUs that no option names go to node (socket number) modulo (number of nodes), as in QEMU.
    Raises `UsageError`, naming the option.
    """
    if not options:
        return None
    draft = _Draft(topology)
    kinds = {"node": draft.add_node, "cpu": draft.add_cpus, "dist": draft.add_distance}
    # Nodes first, so that options can come in any order.
    for kind in kinds:
        for option in options:
            if option.partition(",")[0] == kind:
                kinds[kind](_Option(option))
    for option in options:
        if (first := option.partition(",")[0]) not in kinds:
            raise UsageError(f"--numa {option}: '{first}' is not one of {', '.join(kinds)}")
    return draft.layout(memory)


class _Option:
    """One `--numa` option: its keys and values, each taken once by the code that knows it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._pairs: list[tuple[str, str]] = []
        for part in text.split(",")[1:]:
            key, equals, value = part.partition("=")
            if not equals or not value:
                self.fail(f"'{part}' is not of the form name=value")
            self._pairs.append((key, value))

    def fail(self, why: str) -> NoReturn:
        raise UsageError(f"--numa {self.text}: {why}")

    def all(self, key: str) -> list[str]:
        found = [value for name, value in self._pairs if name == key]
        self._pairs = [pair for pair in self._pairs if pair[0] != key]
        return found

    def text_of(self, key: str) -> str | None:
        found = self.all(key)
        if len(found) > 1:
            self.fail(f"'{key}' is given twice")
        return found[0] if found else None

    def number(self, key: str) -> int | None:
        value = self.text_of(key)
        return None if value is None else self.parse(key, value)

    def needed(self, key: str) -> int:
        value = self.number(key)
        if value is None:
            self.fail(f"it needs {key}=")
        return value

    def parse(self, key: str, value: str) -> int:
        if not (value.isascii() and value.isdigit()) or len(value) > 9:
            self.fail(f"{key}={value} is not a whole number")
        return int(value)

    def done(self, *known: str) -> None:
        """Everything was taken; `known` is for the message if not."""
        if self._pairs:
            name = self._pairs[0][0]
            if name == "memdev":
                self.fail("memory back ends are not supported, give the node's size with mem=")
            self.fail(f"'{name}' is not one of {', '.join(known)}")


@dataclass
class _Draft:
    """What the options read so far say."""

    topology: Topology
    memory: dict[int, int | None] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    distances: dict[tuple[int, int], int] = field(default_factory=dict)

    def add_node(self, option: _Option) -> None:
        node = option.number("nodeid")
        if node is None:
            node = len(self.memory)
        if node >= MAX_NODES:
            option.fail(f"node {node} is too high, there can be {MAX_NODES} nodes")
        if node in self.memory:
            option.fail(f"node {node} is given twice")
        for text in option.all("cpus"):
            first, dash, last = text.partition("-")
            start = option.parse("cpus", first)
            stop = option.parse("cpus", last) if dash else start
            if stop < start:
                option.fail(f"cpus={text} ends before it begins")
            if stop >= self.topology.max_cpus:
                option.fail(
                    f"CPU {stop} is too high, maxcpus is {self.topology.max_cpus}, counted from 0"
                )
            for index in range(start, stop + 1):
                self._assign(option, index, node)
        size = option.text_of("mem")
        self.memory[node] = None if size is None else parse_size(size)
        option.done("nodeid", "cpus", "mem")

    def add_cpus(self, option: _Option) -> None:
        node = option.needed("node-id")
        self._check_node(option, node)
        wanted = {level: option.number(level.id_name) for level in self.topology.levels}
        option.done("node-id", *(level.id_name for level in wanted))
        given = {level: value for level, value in wanted.items() if value is not None}
        if not given:
            option.fail("it names no CPU, add for example socket-id=0")
        matching = [
            index
            for index, slot in enumerate(self.topology.slots())
            if all(slot[level] == value for level, value in given.items())
        ]
        if not matching:
            option.fail(f"no CPU of {self.topology} matches")
        for index in matching:
            self._assign(option, index, node)

    def add_distance(self, option: _Option) -> None:
        source, target = option.needed("src"), option.needed("dst")
        value = option.needed("val")
        option.done("src", "dst", "val")
        for node in (source, target):
            self._check_node(option, node)
        if not LOCAL_DISTANCE <= value <= UNREACHABLE:
            option.fail(f"val={value} is not from {LOCAL_DISTANCE} to {UNREACHABLE}")
        if source == target and value != LOCAL_DISTANCE:
            option.fail(f"a node's distance to itself is {LOCAL_DISTANCE}")
        self.distances[source, target] = value

    def _check_node(self, option: _Option, node: int) -> None:
        if node not in self.memory:
            option.fail(f"there is no node {node}; define it with --numa node,nodeid={node}")

    def _assign(self, option: _Option, index: int, node: int) -> None:
        before = self.slots.setdefault(index, node)
        if before != node:
            option.fail(f"CPU {index} is in node {before} already")

    def layout(self, memory: int) -> NumaLayout:
        if not self.memory:
            raise UsageError("--numa: there is no node; define one with --numa node,nodeid=0")
        for node in range(len(self.memory)):
            if node not in self.memory:
                raise UsageError(
                    f"--numa: node {node} is missing: the numbers of {len(self.memory)} nodes "
                    f"must be 0 to {len(self.memory) - 1}"
                )
        slots, warnings = self._every_slot()
        sizes = self._sizes(memory)
        nodes = [NumaNode(node, ranges) for node, ranges in enumerate(_ranges(sizes))]
        return NumaLayout(tuple(nodes), slots, self._distances(), warnings)

    def _every_slot(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        defaults = [_socket(slot) % len(self.memory) for slot in self.topology.slots()]
        nodes = tuple(self.slots.get(index, default) for index, default in enumerate(defaults))
        missing = [str(index) for index in range(len(nodes)) if index not in self.slots]
        if not missing or not self.slots:
            return nodes, ()
        sentence = (
            f"--numa: CPU {', '.join(missing)} is in no node; it was put into one by its socket. "
            "Name all CPUs up to maxcpus"
        )
        return nodes, (sentence,)

    def _sizes(self, memory: int) -> list[int]:
        count = len(self.memory)
        sizes = [self.memory[node] for node in range(count)]
        if all(size is None for size in sizes):
            share = memory // count // _MIB * _MIB
            return [share] * (count - 1) + [memory - share * (count - 1)]
        known = [size or 0 for size in sizes]
        for node, size in enumerate(known):
            if size % _PAGE:
                raise UsageError(f"--numa: mem of node {node} is {size}, no multiple of 4K")
        if sum(known) != memory:
            raise UsageError(
                f"--numa: the nodes have {sum(known) / _MIB:g} MiB together, but the machine has "
                f"{memory / _MIB:g} MiB: make mem= of the nodes add up to that"
            )
        return known

    def _distances(self) -> tuple[tuple[int, ...], ...]:
        nodes = range(len(self.memory))
        given = self.distances
        asymmetric = any(given.get((b, a), value) != value for (a, b), value in given.items())
        table = []
        for a in nodes:
            row = []
            for b in nodes:
                value = given.get((a, b))
                if value is None and not asymmetric:
                    value = given.get((b, a))
                if a == b:
                    value = LOCAL_DISTANCE
                elif value is None and given:
                    raise UsageError(
                        f"--numa: the distance from node {a} to node {b} is missing: where "
                        "distances are given, each pair of nodes needs one"
                        + (", and both directions where a pair differs" if asymmetric else "")
                    )
                row.append(REMOTE_DISTANCE if value is None else value)
            table.append(tuple(row))
        return tuple(table)


def _socket(slot: SlotId) -> int:
    return slot.get(TopologyLevel.SOCKET)


def _ranges(sizes: Sequence[int]) -> Iterator[tuple[range, ...]]:
    """Where each node's memory is: one after the other, around the hole below 4 GiB."""
    start = 0
    for size in sizes:
        stop = start + size
        low = range(start, min(stop, HOLE_START))
        above = HOLE_END - HOLE_START
        high = range(max(start, HOLE_START) + above, stop + above)
        yield tuple(area for area in (low, high) if area)
        start = stop
