"""CPU topology: levels, their counts, and the slots they make."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

from cpufw.errors import TopologyError


class TopologyLevel(enum.Enum):
    """One level of a machine's CPU topology, outermost first (QEMU's `-smp` names)."""

    DRAWER = "drawer"
    BOOK = "book"
    SOCKET = "socket"
    DIE = "die"
    CLUSTER = "cluster"
    MODULE = "module"
    CORE = "core"
    THREAD = "thread"

    @property
    def plural(self) -> str:
        """The `-smp` key that counts this level: `sockets`."""
        return self.value + "s"

    @property
    def id_name(self) -> str:
        """The property that selects one of this level: `socket-id`."""
        return self.value + "-id"


@dataclass(frozen=True, slots=True)
class SlotId:
    """The place of one thread: the index at each of the topology's levels, outermost first."""

    levels: tuple[TopologyLevel, ...]
    ids: tuple[int, ...]

    def __getitem__(self, level: TopologyLevel) -> int:
        return self.ids[self.levels.index(level)]

    def get(self, level: TopologyLevel, default: int = 0) -> int:
        """The index at `level`, or `default` where this topology has no such level."""
        return self[level] if level in self.levels else default

    def props(self) -> dict[str, int]:
        """`{"socket-id": 0, …, "thread-id": 0}`."""
        return {level.id_name: index for level, index in zip(self.levels, self.ids, strict=True)}

    def __str__(self) -> str:
        return ", ".join(f"{name}={index}" for name, index in self.props().items())


@dataclass(frozen=True)
class Topology:
    """How many of each level one of the level above holds, and how many CPUs are there at boot.

    `counts` goes outermost first; `max_cpus` is the product of all counts.
    """

    counts: tuple[tuple[TopologyLevel, int], ...]
    cpus: int

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.counts, self.cpus))

    @cached_property
    def levels(self) -> tuple[TopologyLevel, ...]:
        """The levels this topology distinguishes, outermost first."""
        return tuple(level for level, _ in self.counts)

    @cached_property
    def max_cpus(self) -> int:
        """The number of slots."""
        return prod(count for _, count in self.counts)

    def count(self, level: TopologyLevel) -> int:
        """How many of `level` one of the level above it holds; 1 where the level is absent."""
        return dict(self.counts).get(level, 1)

    def threads_per(self, level: TopologyLevel) -> int:
        """How many threads one unit of `level` holds."""
        inside = self.levels[self.levels.index(level) + 1 :] if level in self.levels else ()
        return prod(self.count(inner) for inner in inside)

    def slot(self, index: int) -> SlotId:
        """The slot with this CPU index (threads vary fastest)."""
        if not 0 <= index < self.max_cpus:
            raise TopologyError(
                f"CPU index {index} is out of range; this topology has {self.max_cpus} slots"
            )
        ids: list[int] = []
        for _, count in reversed(self.counts):
            index, position = divmod(index, count)
            ids.append(position)
        return SlotId(self.levels, tuple(reversed(ids)))

    def index(self, slot: SlotId) -> int:
        """The CPU index of `slot`."""
        index = 0
        for (_, count), position in zip(self.counts, slot.ids, strict=True):
            index = index * count + position
        return index

    def slots(self) -> Iterator[SlotId]:
        """Every slot in CPU-index order."""
        for ids in product(*(range(count) for _, count in self.counts)):
            yield SlotId(self.levels, ids)

    def __str__(self) -> str:
        shape = ",".join(f"{level.plural}={count}" for level, count in self.counts)
        return f"{self.cpus},maxcpus={self.max_cpus},{shape}"


def parse_smp(text: str, levels: Sequence[TopologyLevel], limit: int) -> Topology:
    """The topology that a `-smp` string describes, for a machine with these levels.

    `"4"`, `"2,maxcpus=8"`, `"cpus=1,maxcpus=4,sockets=2,cores=2,threads=1"`. `limit` is the most
    CPUs the machine type holds. Raises `TopologyError`.
    """
    given: dict[str, int] = {}
    known = ["cpus", "maxcpus", *(level.plural for level in TopologyLevel)]
    for position, part in enumerate(text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            if position:
                raise TopologyError(f"--smp: '{part}' needs a value, as in sockets=2")
            key, value = "cpus", part
        if key not in known:
            raise TopologyError(f"--smp: '{key}' is not one of {', '.join(known)}")
        if key in given:
            raise TopologyError(f"--smp: '{key}' is given twice")
        if not value.isascii() or not value.isdigit():
            raise TopologyError(f"--smp: {key}={value} is not a whole number")
        if len(value) > 9:  # Python refuses to read numbers of thousands of digits
            raise TopologyError(f"--smp: {key} exceeds this machine's maximum of {limit} CPUs")
        given[key] = int(value)
    return build_topology(given, levels, limit)


def build_topology(
    given: Mapping[str, int], levels: Sequence[TopologyLevel], limit: int
) -> Topology:
    """The topology for the counts that were `given`, missing ones filled in.

    As in QEMU since 6.2 a missing `maxcpus` is `cpus`, and a missing `cores` takes what is left,
    then `sockets`, then `threads`.
    Raises `TopologyError` where the counts contradict one another or exceed `limit`.
    """
    for name, value in given.items():
        if value < 1:
            text = f"--smp: {name}={value} must be at least 1"
            raise TopologyError(text, "not-positive")
    for level in TopologyLevel:
        if level not in levels and given.get(level.plural, 1) > 1:
            text = f"--smp: this machine's CPU topology has no {level.plural}"
            raise TopologyError(text, "no-level", level=level.plural)
    counts = {level: given.get(level.plural, 0) for level in levels}
    cpus, max_cpus = given.get("cpus", 0), given.get("maxcpus", 0)
    fill_order = (TopologyLevel.CORE, TopologyLevel.SOCKET, TopologyLevel.THREAD)
    missing = [level for level in fill_order if level in counts and not counts[level]]
    for level in levels:
        if level not in fill_order:
            counts[level] = counts[level] or 1
    max_cpus = total = max_cpus or cpus
    if total and missing:
        known_product = prod(count for count in counts.values() if count)
        counts[missing[0]] = max(1, total // known_product)
    for level in levels:
        counts[level] = counts[level] or 1
    size = prod(counts.values())
    max_cpus = max_cpus or size
    cpus = cpus or max_cpus
    shape = " * ".join(f"{level.plural} ({count})" for level, count in counts.items())
    if size != max_cpus:
        text = f"--smp: {shape} is {size}, which must equal maxcpus ({max_cpus})"
        raise TopologyError(text, "product", shape=shape, max_cpus=max_cpus)
    if cpus > max_cpus:
        text = f"--smp: maxcpus ({max_cpus}) must be at least cpus ({cpus})"
        raise TopologyError(text, "too-few", shape=shape, max_cpus=max_cpus, cpus=cpus)
    if max_cpus > limit:
        text = f"--smp: {max_cpus} CPUs exceed this machine's maximum of {limit}"
        raise TopologyError(text, "limit", max_cpus=max_cpus)
    return Topology(tuple(counts.items()), cpus)
