"""APIC ids: where a slot of the topology sits in the id that CPUID and the interrupts use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from cpufw.core.topology import SlotId, Topology, TopologyLevel
from cpufw.errors import TopologyError

X86_LEVELS = (
    TopologyLevel.SOCKET,
    TopologyLevel.DIE,
    TopologyLevel.MODULE,
    TopologyLevel.CORE,
    TopologyLevel.THREAD,
)
"""The levels an x86 topology may have, outermost first."""


@dataclass(frozen=True, slots=True)
class ApicIdLayout:
    """The bit fields of one topology's APIC ids.

    Each level takes ceil(log2(n)) bits, threads lowest, so ids are sparse where n is not a power
    of two. Source: Intel SDM vol. 3A, 9.9.1 "Hierarchical Mapping of Shared Resources".
    `counts` and `shifts` go outermost first, in the order of `X86_LEVELS`.
    """

    topology: Topology
    counts: tuple[int, ...]
    shifts: tuple[int, ...]

    @classmethod
    def of(cls, topology: Topology) -> ApicIdLayout:
        """The layout for `topology`; `TopologyError` if it has several of a level x86 lacks."""
        return _layout(topology)

    def shift(self, level: TopologyLevel) -> int:
        """How many bits an id has below the field of `level`: ids >> shift tell its units apart."""
        return self.shifts[X86_LEVELS.index(level)]

    def count(self, level: TopologyLevel) -> int:
        """How many of `level` one unit of the level above it holds."""
        return self.counts[X86_LEVELS.index(level)]

    def threads_per(self, level: TopologyLevel) -> int:
        """How many threads one unit of `level` really holds (ids may leave gaps)."""
        return prod(self.counts[X86_LEVELS.index(level) + 1 :])

    def apic_id(self, slot: SlotId) -> int:
        """The APIC id of `slot`; `TopologyError` where the topology has no such slot."""
        apic_id = 0
        for level, count, shift in zip(X86_LEVELS, self.counts, self.shifts, strict=True):
            position = slot.get(level)
            if not 0 <= position < count:
                raise TopologyError(
                    f"{level.id_name}={position} is out of range; "
                    f"this topology has {count} of them, counted from 0"
                )
            apic_id |= position << shift
        return apic_id

    def slot(self, apic_id: int) -> SlotId:
        """The slot with this APIC id; `TopologyError` where the id falls in a gap or beyond."""
        positions = dict(zip(X86_LEVELS, self.positions(apic_id), strict=True))
        for (level, position), count in zip(positions.items(), self.counts, strict=True):
            if not 0 <= position < count:
                raise TopologyError(
                    f"APIC id {apic_id} names {level.id_name}={position}; "
                    f"this topology has {count} of them, counted from 0"
                )
        levels = self.topology.levels
        return SlotId(levels, tuple(positions.get(level, 0) for level in levels))

    def positions(self, apic_id: int) -> tuple[int, ...]:
        """The fields of an id, in the order of `X86_LEVELS`, of any slot or of none."""
        positions = []
        for shift in self.shifts:
            positions.append(apic_id >> shift)
            apic_id &= (1 << shift) - 1
        return tuple(positions)


@lru_cache(maxsize=64)
def _layout(topology: Topology) -> ApicIdLayout:
    for level, count in topology.counts:
        if count > 1 and level not in X86_LEVELS:
            raise TopologyError(f"an x86 CPU topology has no {level.plural}; {count} were given")
    counts = tuple(topology.count(level) for level in X86_LEVELS)
    shifts = []
    shift = 0
    for count in reversed(counts):
        shifts.append(shift)
        shift += (count - 1).bit_length()
    return ApicIdLayout(topology, counts, tuple(reversed(shifts)))


def apic_id(topology: Topology, slot: SlotId) -> int:
    """The APIC id of `slot`."""
    return ApicIdLayout.of(topology).apic_id(slot)


def slot_of_apic_id(topology: Topology, apic_id: int) -> SlotId:
    """The slot whose APIC id this is; `TopologyError` where there is none."""
    return ApicIdLayout.of(topology).slot(apic_id)
