"""Sockets that users make, and the machine's links that plug them: `socket[n]`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from cpufw.core.hotplug import Slot, SlotState
from cpufw.core.qom import Object, Property
from cpufw.core.topology import TopologyLevel
from cpufw.core.unit import CPUUnit, UnitPlaces
from cpufw.errors import HotplugError, NotFoundError, PropertyError

if TYPE_CHECKING:
    from cpufw.core.machine import Machine
    from cpufw.core.slot_tree import SlotTree

SOCKET_TYPE = "CPUSocket"
"""What a link `socket[n]` may lead to: a `CPUSocket`, or the topology's own object."""


class CPUSocket(CPUUnit):
    """A socket of `/objects`; its CPUs are there while a link of the machine leads to it.

    `socket-id` is the index of that link, -1 while there is none.
    """

    def __init__(self, type_name: str, inside: Mapping[str, int]) -> None:
        super().__init__(type_name, "", (), inside)
        self.index = -1
        self.add_property(
            Property("socket-id", "int32", writable=False, compute=lambda socket: socket.index)
        )

    def take(self, index: int, slots: tuple[Slot, ...]) -> None:
        """It is to be plugged there."""
        self.index, self.slots = index, slots

    def left(self) -> None:
        """It is out of the machine, and can go anywhere again."""
        self.index, self.slots = -1, ()


class Sockets:
    """The links `socket[n]` of `machine`: each leads to what fills that socket.

    That is a `CPUSocket`, a unit that `device_add` plugged there, or, where CPUs are in it that
    came one by one, the topology's object. Setting one plugs a whole socket, clearing it asks the
    guest to give it up. `contents` says what each has: `{"cores": 2, "threads": 2}`.
    """

    def __init__(self, machine: Machine, units: UnitPlaces, tree: SlotTree) -> None:
        self._machine, self._units, self._tree = machine, units, tree
        topology = machine.topology
        self.type_name = f"{machine.cpu_class.type_name.removesuffix('-cpu')}-socket"
        self._groups: list[tuple[Slot, ...]] = []
        self.contents: dict[str, int] = {}
        if TopologyLevel.SOCKET not in topology.levels:
            return
        size = topology.threads_per(TopologyLevel.SOCKET)
        inner = topology.levels[topology.levels.index(TopologyLevel.SOCKET) + 1 :]
        self.contents = {level.plural: topology.count(level) for level in inner}
        for index, first in enumerate(range(0, len(machine.slots), size)):
            self._groups.append(machine.slots[first : first + size])
            machine.add_link(
                f"socket[{index}]",
                SOCKET_TYPE,
                find=partial(self._holder, index),
                on_set=partial(self._set, index),
            )

    def new(self, type_name: str, **properties: Any) -> CPUSocket:
        """A socket for any place of the machine; `cores`, `threads`, … say what is in it.

        Those that are not given are as in the machine; others than the machine's raise
        `PropertyError`, another type `HotplugError`.
        """
        if type_name != self.type_name or not self._groups:
            there = f"are {self.type_name}" if self._groups else "do not exist"
            raise HotplugError(f"{type_name} does not fit: this machine's sockets {there}")
        for name, value in properties.items():
            if name not in self.contents:
                unknown = NotFoundError(f"property of {type_name}", name, self.contents)
                facts = {"owner": self.type_name, "property": name}
                raise PropertyError(str(unknown), "no-property", **facts)
            given = Property(name, "uint32").parse(value, type_name)
            if given != self.contents[name]:
                raise PropertyError(
                    f"{type_name}.{name}={given} does not fit: in a socket of this machine it is "
                    f"{self.contents[name]}"
                )
        return CPUSocket(type_name, self.contents)

    def link_of(self, slot: Slot) -> str:
        """The link of the socket that `slot` is in."""
        return f"socket[{slot.index // len(self._groups[0])}]"

    def enter(self, index: int, socket: CPUSocket) -> None:
        """Check that `socket` can go there, and let it. Raises `HotplugError`."""
        place = f"socket[{index}]"
        if not isinstance(socket, CPUSocket) or socket.parent is None:
            raise HotplugError(f"{place}: expected a {self.type_name} of /objects")
        if socket.type_name != self.type_name:
            raise HotplugError(f"{place}: {socket.path} is no {self.type_name}")
        if not 0 <= index < len(self._groups):
            raise HotplugError(
                f"{place} is not there, this machine has socket[0] to "
                f"socket[{len(self._groups) - 1}]"
            )
        for slot in self._groups[index]:
            if slot.state is not SlotState.EMPTY:
                unit = self._units.at(slot)
                holder = unit.path if unit is not None else slot.occupant[0] or "a CPU"
                raise HotplugError(f"{place} is taken by {holder} ({slot.state.value})")
        if socket.index >= 0:
            raise HotplugError(f"{socket.path} is in socket[{socket.index}] already")
        socket.take(index, self._groups[index])

    def leaving(self, index: int) -> Slot | None:
        """A slot of the unit that is to be asked to leave; None where nothing is.

        Raises `HotplugError` if CPUs are there that came one by one.
        """
        there = [slot for slot in self._groups[index] if slot.cpu is not None]
        if not there:
            return None
        if self._units.at(there[0]) is None:
            paths = ", ".join(slot.cpu.path for slot in there if slot.cpu is not None)
            raise HotplugError(
                f"socket[{index}] holds CPUs that came one by one: unplug them so ({paths})"
            )
        return there[0]

    def _holder(self, index: int) -> Object | None:
        group = self._groups[index]
        filled = next((slot for slot in group if slot.state is not SlotState.EMPTY), None)
        if filled is None:
            return None
        unit = self._units.at(filled)
        return unit if unit is not None and unit.slots == group else self._tree.socket(filled)

    def _set(self, index: int, socket: Object | None) -> None:
        if socket is None:
            self._machine.unplug_socket(index)
            return
        if not isinstance(socket, CPUSocket):
            raise PropertyError(
                f"socket[{index}]: {socket.path} is a {socket.type_name}, expected a "
                f"{self.type_name} of /objects",
                "wrong-type",
                property=f"socket[{index}]",
                type=SOCKET_TYPE,
            )
        self._machine.plug_socket(index, socket)
