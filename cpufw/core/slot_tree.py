"""Slots as users see them: objects of the tree, and the ids that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cpufw.core.arch import NO_ID
from cpufw.core.hotplug import Slot
from cpufw.core.qom import Object
from cpufw.core.topology import SlotId, Topology, TopologyLevel
from cpufw.errors import HotplugError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cpufw.core.cpu import CPUState

REQUIRED_IDS = (TopologyLevel.SOCKET, TopologyLevel.CORE, TopologyLevel.THREAD)
"""Levels whose ids device_add must name even where there is only one of them, as in QEMU."""


class Node(Object):
    """A container or a topology object; the type name is the instance's."""

    def __init__(self, type_name: str) -> None:
        super().__init__()
        self.type_name = type_name


class SlotTree:
    """The sockets, cores and threads of `topology` under `root`, one thread a slot.

    A level that nobody divided (one die a socket) is in neither paths nor ids, as in QEMU, unless
    `slot_ids` gives a slot's ids (see `MachineType`).
    """

    def __init__(
        self,
        root: Object,
        topology: Topology,
        slots: tuple[Slot, ...],
        cpu_type: str,
        slot_ids: Callable[[Topology, SlotId], dict[str, int]] | None = None,
    ) -> None:
        self._topology, self._slots = topology, slots
        self._slot_ids = slot_ids
        self._levels = [
            level for level in topology.levels if level in REQUIRED_IDS or topology.count(level) > 1
        ]
        self._threads = [self._thread(root, slot, cpu_type) for slot in slots]

    def _thread(self, node: Object, slot: Slot, cpu_type: str) -> Object:
        for level in self._levels:
            name = f"{level.value}[{slot.id[level]}]"
            step = node.child(name)
            if step is None:
                step = Node(level.value)
                node.add_child(name, step)
            node = step
        node.add_link("cpu", cpu_type)
        return node

    def show(self, slot: Slot, cpu: CPUState | None) -> None:
        """Link the thread of `slot` to the CPU that fills it, or to none."""
        self._threads[slot.index].set_link("cpu", cpu)

    def socket(self, slot: Slot) -> Object | None:
        """The object of the socket that `slot` is in."""
        node: Object | None = self._threads[slot.index]
        while node is not None and node.type_name != TopologyLevel.SOCKET.value:
            node = node.parent
        return node

    def ids(self, slot: Slot) -> dict[str, int]:
        """The ids that name `slot`: `{"socket-id": 0, "core-id": 1, "thread-id": 0}`."""
        if self._slot_ids is not None:
            return self._slot_ids(self._topology, slot.id)
        return {level.id_name: slot.id[level] for level in self._levels}

    def hotpluggable(
        self, cpu_type: str, place_of: Callable[[Slot], dict[str, int]]
    ) -> list[dict[str, Any]]:
        """Every slot as QMP's `query-hotpluggable-cpus` shows it, highest first."""
        shown = []
        for slot in reversed(self._slots):
            entry = {"props": place_of(slot), "vcpus-count": 1, "type": cpu_type}
            if slot.cpu is not None:
                entry["qom-path"] = slot.cpu.path
            shown.append(entry)
        return shown

    def named_by(self, cpu: CPUState) -> Slot:
        """The slot that the ids given to `cpu` name. Raises `HotplugError`."""
        if self._slot_ids is not None:
            return self._told_apart(cpu)
        arch_id = cpu.given(cpu.architecture.arch_id_name)
        if arch_id is not None and arch_id != NO_ID:
            return self._with_arch_id(cpu, arch_id)
        ids = []
        for level, count in self._topology.counts:
            name, last = level.id_name, count - 1
            value = _given(cpu, name)
            if value is None:
                if level in self._levels:
                    raise HotplugError(
                        f"{cpu.type_name}: {name} is not set, expected 0 to {last}",
                        "not-set",
                        property=name,
                    )
                value = 0
            if value > last:
                raise HotplugError(
                    f"{cpu.type_name}: {name}={value} is out of range, expected 0 to {last}",
                    "out-of-range",
                    property=name,
                    value=value,
                    last=last,
                )
            ids.append(value)
        return self._slots[self._topology.index(SlotId(self._topology.levels, tuple(ids)))]

    def _with_arch_id(self, cpu: CPUState, arch_id: int) -> Slot:
        named = f"{cpu.architecture.arch_id_name}={arch_id}"
        slot = next((each for each in self._slots if each.arch_id == arch_id), None)
        if slot is None:
            raise HotplugError(
                f"{cpu.type_name}: this machine has no place with {named}",
                "no-such-place",
                arch_id=arch_id,
                last=len(self._slots) - 1,
            )
        for name, there in slot.id.props().items():
            value = _given(cpu, name)
            if value is not None and value != there:
                raise HotplugError(
                    f"{cpu.type_name}: {name}={value} contradicts {named}, whose {name} is {there}",
                    "contradiction",
                    property=name,
                    value=value,
                    arch_id=arch_id,
                    there=there,
                )
        return slot

    def _told_apart(self, cpu: CPUState) -> Slot:
        places = [(slot, self.ids(slot)) for slot in self._slots]
        for name in places[0][1]:
            value = _given(cpu, name)
            if value is None:
                continue
            known = [ids[name] for _, ids in places]
            places = [(slot, ids) for slot, ids in places if ids[name] == value]
            if not places:
                raise HotplugError(
                    f"{cpu.type_name}: {name}={value} is not there, "
                    f"expected {min(known)} to {max(known)}",
                    "out-of-range",
                    property=name,
                    value=value,
                    last=max(known),
                )
        if len(places) > 1:
            *_, last = places[0][1]
            raise HotplugError(f"{cpu.type_name}: {last} is not set", "not-set", property=last)
        return places[0][0]


def _given(cpu: CPUState, name: str) -> Any:
    """The id given to `cpu`; a negative one, as in QEMU, is none."""
    value = cpu.given(name)
    return None if value is None or value < 0 else value
