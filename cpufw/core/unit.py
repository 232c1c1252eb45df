"""Plug units above the thread: a core, or a socket, whose threads come and go together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from cpufw.core.arch import PlugUnit
from cpufw.core.cpu import CPUState
from cpufw.core.hotplug import Slot, SlotState
from cpufw.core.qom import DEVICE_PROPERTIES, Object, Property
from cpufw.core.slot_tree import REQUIRED_IDS
from cpufw.core.topology import SlotId, Topology, TopologyLevel
from cpufw.errors import HotplugError, NotFoundError, PropertyError, TopologyError


class CPUUnit(Object):
    """A unit that is plugged, with each of its CPUs as a child: `thread[0]`, `thread[1]`.

    Its properties are the ids that name its place, and how many threads it has. While it is
    `filling` the guest is not told of its CPUs: either all come, or none was ever there.
    """

    def __init__(
        self, type_name: str, device_id: str, slots: Sequence[Slot], properties: Mapping[str, int]
    ) -> None:
        super().__init__()
        self.type_name, self.device_id, self.slots = type_name, device_id, slots
        self.hotplugged = self.filling = False
        for spec in DEVICE_PROPERTIES:
            self.add_property(spec)
        for name, value in properties.items():
            self.add_property(Property(name, "int", default=value, writable=False))

    hotpluggable = True

    @property
    def realized(self) -> bool:
        """Whether there is a CPU in it."""
        return bool(self.plugged())

    def add_thread(self, cpu: CPUState, slot: Slot) -> None:
        """Make the CPU of `slot` a child."""
        self.add_child(f"thread[{self.slots.index(slot)}]", cpu)

    def plugged(self) -> list[Slot]:
        """Its slots that hold a CPU: all of them, but while it comes or goes."""
        return [slot for slot in self.slots if slot.cpu is not None]

    def left(self) -> None:
        """Its last CPU is gone, and so is the unit."""
        self.unparent()


class UnitPlaces:
    """Every place for a unit in a machine, and which unit is there; none if `kind` is None.

    Raises `TopologyError` if the CPUs that are there from the start do not fill whole units.
    """

    def __init__(
        self, kind: PlugUnit | None, model: str, topology: Topology, slots: Sequence[Slot]
    ) -> None:
        self.kind = kind
        self._ids: list[dict[str, int]] = []
        self._groups: dict[tuple[tuple[str, int], ...], Sequence[Slot]] = {}
        self._units: dict[int, CPUUnit] = {}
        self._size = 1
        if kind is None:
            return
        self.type_name = kind.type_name.format(model=model)
        self._suffix = kind.type_name.format(model="")
        self._level = kind.level.value
        self._size = topology.threads_per(kind.level)
        if topology.cpus % self._size:
            raise TopologyError(
                f"--smp: {topology.cpus} CPUs do not fill whole {kind.level.plural} "
                f"of {self._size} threads"
            )
        groups = [slots[first : first + self._size] for first in range(0, len(slots), self._size)]
        ids = kind.ids or partial(_indices, kind.level)
        self._ids = [ids(topology, group[0].id) for group in groups]
        self._groups = dict(zip((_key(ids) for ids in self._ids), groups, strict=True))

    def ids(self, slot: Slot) -> dict[str, int]:
        """The ids that name the unit of `slot`."""
        return dict(self._ids[slot.index // self._size])

    def at(self, slot: Slot) -> CPUUnit | None:
        """The unit that `slot` is part of, None if nothing is plugged there."""
        return self._units.get(slot.index)

    def enter(self, unit: CPUUnit) -> None:
        """The unit is there from now on."""
        self._units.update((slot.index, unit) for slot in unit.slots)

    def leave(self, unit: CPUUnit) -> None:
        """The unit is gone."""
        for slot in unit.slots:
            self._units.pop(slot.index, None)
        unit.left()

    def boot_units(self, cpus: int) -> list[CPUUnit]:
        """The units of the first `cpus` slots."""
        count = cpus // self._size
        return [self._unit("", ids) for ids in self._ids[:count]]

    def new_unit(self, driver: str, device_id: str, properties: Mapping[str, Any]) -> CPUUnit:
        """A unit for the place that `properties` name. Raises `HotplugError`, `PropertyError`."""
        if driver != self.type_name:
            raise HotplugError(
                f"{driver} cannot be plugged: this machine takes whole {self._level}s, "
                f"{self.type_name}",
                "wrong-type" if driver.endswith(self._suffix) else "not-pluggable",
                driver=driver,
                expected=self.type_name,
            )
        given = self._parsed(properties)
        threads = given.pop("nr-threads", self._size)
        if threads != self._size:
            raise HotplugError(
                f"{driver}: nr-threads={threads} does not fit: a {self._level} of this machine "
                f"has {self._size} threads",
                "wrong-threads",
                threads=threads,
                expected=self._size,
            )
        for name in self._ids[0]:
            known = {ids[name] for ids in self._ids}
            if len(known) == 1:
                given.setdefault(name, *known)
            if given.get(name) not in known:
                value = given.get(name)
                wrong = " is not set" if value is None else f"={value} is not there"
                raise HotplugError(
                    f"{driver}: {name}{wrong}, expected {_choices(known)}",
                    "not-set" if value is None else "out-of-range",
                    property=name,
                    value=value,
                    last=max(known),
                )
        return self._unit(device_id, given)

    def check_free(self, unit: CPUUnit) -> None:
        """Raise `HotplugError` if anything is where `unit` is to go."""
        for slot in unit.slots:
            if slot.state is not SlotState.EMPTY:
                there = self.at(slot)
                holder = there.device_id or there.path if there is not None else "a CPU"
                place = ", ".join(f"{name}={unit.get(name)}" for name in self._ids[0])
                raise HotplugError(
                    f"{self.type_name}: {place} is taken by {holder} ({slot.state.value})",
                    "slot-taken",
                    index=slot.index,
                    arch_id=unit.slots[0].arch_id,
                )

    def _parsed(self, properties: Mapping[str, Any]) -> dict[str, int]:
        parsed = {}
        known = [*self._ids[0], "nr-threads"]
        for name, value in properties.items():
            own = name.replace("_", "-")
            if own not in known:
                unknown = NotFoundError(f"property of {self.type_name}", name, known)
                raise PropertyError(
                    str(unknown), "no-property", owner=self.type_name, property=name
                )
            parsed[own] = Property(own, "int", low=0).parse(value, self.type_name)
        return parsed

    def _unit(self, device_id: str, ids: Mapping[str, int]) -> CPUUnit:
        shown = {**ids, "nr-threads": self._size}
        return CPUUnit(self.type_name, device_id, self._groups[_key(ids)], shown)

    def hotpluggable(self) -> list[dict[str, Any]]:
        """Every place as QMP's `query-hotpluggable-cpus` shows it, highest first."""
        shown = []
        for ids, slots in zip(reversed(self._ids), reversed(self._groups.values()), strict=True):
            entry = {"props": dict(ids), "vcpus-count": self._size, "type": self.type_name}
            unit = self.at(slots[0])
            if unit is not None:
                entry["qom-path"] = unit.path
            shown.append(entry)
        return shown


def _indices(level: TopologyLevel, topology: Topology, slot: SlotId) -> dict[str, int]:
    outer = topology.levels[: topology.levels.index(level) + 1]
    shown = [each for each in outer if each in REQUIRED_IDS or topology.count(each) > 1]
    return {each.id_name: slot[each] for each in shown}


def _key(ids: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(ids.items()))


def _choices(values: Collection[int]) -> str:
    """`0 to 7`, `a multiple of 4 up to 28`, or each of them."""
    ordered = sorted(values)
    last = ordered[-1]
    step = ordered[1] if len(ordered) > 1 else 1
    if ordered != list(range(0, last + 1, step)):
        return ", ".join(map(str, ordered))
    if step == 1:
        return f"0 to {last}" if last else "0"
    return f"a multiple of {step} up to {last}"
