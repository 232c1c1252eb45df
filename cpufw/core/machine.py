"""A machine: slots from a topology, CPUs in them, and the board that surrounds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from cpufw.core.accel import Accelerator, defaults_of, filled_in
from cpufw.core.arch import MachineType
from cpufw.core.cpu import CPUClass, CPUState
from cpufw.core.devices import DeviceTree
from cpufw.core.features import FeatureSet
from cpufw.core.hotplug import (
    EventLog,
    Hotplug,
    HotplugEvent,
    HotplugEventKind,
    Slot,
    SlotState,
    Veto,
)
from cpufw.core.model import CPUModel, Expansion
from cpufw.core.qom import Property
from cpufw.core.registry import Registry
from cpufw.core.slot_tree import Node, SlotTree
from cpufw.core.sockets import CPUSocket, Sockets
from cpufw.core.topology import Topology
from cpufw.core.unit import UnitPlaces
from cpufw.core.unit_plug import UnitPlug
from cpufw.core.unplug import Unplug
from cpufw.errors import HotplugError, ModelError


class Machine(Unplug):
    """A machine of `machine_type` whose CPUs are all of `cpu_class`.

    `with Machine(...) as machine:` closes it (and its accelerator if `owns_accelerator`). `slots`
    are there from the start; the first `topology.cpus` hold a CPU from the start. `on_realized` is
    called with each CPU that `device_add` realized.
    """

    type_name = "machine"

    def __init__(
        self,
        machine_type: MachineType,
        cpu_class: CPUClass,
        registry: Registry,
        topology: Topology,
        accelerator: Accelerator | None = None,
        cpu_properties: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        vetoes: Sequence[Veto] = (),
        listeners: Sequence[Callable[[HotplugEvent], None]] = (),
    ) -> None:
        super().__init__()
        self.machine_type, self.cpu_class, self.registry = machine_type, cpu_class, registry
        self.topology, self.accelerator = topology, accelerator
        self.cpu_properties = dict(cpu_properties or {})
        self.closed = self.owns_accelerator = False
        self.on_realized: Callable[[CPUState], None] = lambda _cpu: None
        self.log = EventLog()
        self.hotplug = Hotplug(self.log, list(vetoes))
        self.hotplug.listeners.extend(listeners)
        arch_id = cpu_class.architecture.arch_id
        self.slots = tuple(
            Slot(index, slot_id, arch_id(topology, slot_id))
            for index, slot_id in enumerate(topology.slots())
        )
        self._models: dict[str, CPUModel] = {}
        self.expansions: dict[tuple[CPUClass, frozenset[tuple[str, Any]]], Expansion] = {}
        self.type_name = f"{machine_type.name}-machine"
        self.objects, self.chardevs = Node("container"), Node("container")
        root, places = Node("container"), Node("container")
        for name, node in ("objects", self.objects), ("machine", self), ("chardevs", self.chardevs):
            root.add_child(name, node)
        self.devices = DeviceTree(self)
        self.add_child("topology", places)
        smp = {
            "cpus": topology.cpus,
            "maxcpus": len(self.slots),
            **{level.plural: count for level, count in topology.counts},
        }
        self.add_property(Property("smp", "SMPConfiguration", "", smp, writable=False))
        self._tree = SlotTree(
            places, topology, self.slots, cpu_class.type_name, machine_type.slot_ids
        )
        self._units = UnitPlaces(machine_type.plug_unit, cpu_class.model.name, topology, self.slots)
        self._unit_plug = UnitPlug(self, self._units)
        self.sockets = Sockets(self, self._units, self._tree)
        self.board = machine_type.board(self, options or {})
        try:
            for unit in self._units.boot_units(topology.cpus):
                self.devices.add(unit, hotplugged=False)
                self._units.enter(unit)
            for slot in self.slots[: topology.cpus]:
                self.new_cpu("", {}).realize(self, slot)
            self.board.show_devices()
        except BaseException:
            self.close()
            raise

    # --- what realize asks of its machine ------------------------------------------------

    @property
    def accelerator_name(self) -> str:
        """The accelerator's name, `none` without one."""
        return self.accelerator.name if self.accelerator is not None else "none"

    def resolve_model(self, model: CPUModel) -> CPUModel:
        """What `model` means here: the machine type's alias rule, or the host for `host`."""
        found = self._models.get(model.name)
        if found is None:
            found = self.registry.catalogue(model.arch).resolve(
                model.name, self.machine_type.alias_rule
            )
            if found.dynamic:
                if self.accelerator is None:
                    raise ModelError(f"CPU model '{model.name}' needs an accelerator to read from")
                found = filled_in(found, self.accelerator)
            self._models[model.name] = found
        return found

    def compat_values(self, cpu_class: CPUClass) -> dict[str, Any]:
        """The values this machine type sets on `cpu_class` so that an old guest sees no change."""
        suffix = self.registry.suffix(cpu_class.arch)
        return {
            spec.name: spec.parse(compat.value, compat.type_name)
            for compat in self.machine_type.compat
            if compat.type_name in (cpu_class.type_name, suffix)
            and (spec := cpu_class.properties.get(compat.name)) is not None
        }

    def default_features(self, model: CPUModel) -> tuple[FeatureSet, FeatureSet]:
        """What the accelerator turns on and off on every named model."""
        return defaults_of(self.accelerator, model)

    def place_of(self, slot: Slot) -> dict[str, int]:
        """The ids that name `slot`: `{"socket-id": 0, "core-id": 1, "thread-id": 0}`.

        Those of the unit that it is part of where the machine type numbers units in its own way;
        `node-id` where there are NUMA nodes.
        """
        kind = self._units.kind
        numbered = kind is not None and kind.ids is not None
        ids = self._units.ids(slot) if numbered else self._tree.ids(slot)
        node = self.board.node_of(slot)
        return ids if node is None else {**ids, "node-id": node}

    def pre_plug(self, cpu: CPUState, slot: Slot | None) -> Slot:
        """Check that `cpu` may go into `slot` (or the one its properties name) and take it.

        Raises `HotplugError`.
        """
        if self.closed:
            raise HotplugError("the machine is closed")
        if type(cpu) is not self.cpu_class:
            raise self._wrong_type(cpu.type_name)
        slot = slot or self._tree.named_by(cpu)
        with self.hotplug.lock:
            if self._units.kind is not None and self._units.at(slot) is None:
                raise self._wrong_type(cpu.type_name)
            if slot.state is not SlotState.EMPTY:
                holder = slot.occupant[1] or slot.occupant[0] or "a CPU"
                raise HotplugError(
                    f"slot {slot.index} ({slot.id}) is taken by {holder} ({slot.state.value})",
                    "slot-taken",
                    index=slot.index,
                    arch_id=slot.arch_id,
                )
            self._check_node(cpu, slot)
            slot._last_occupant, slot.occupant = slot.occupant, ("", cpu.device_id)
            try:
                self.hotplug.advance(slot, HotplugEventKind.PLUGGING)
            except BaseException:
                slot.occupant = slot._last_occupant
                raise
        return slot

    def _wrong_type(self, driver: str) -> HotplugError:
        unit = self._units.type_name if self._units.kind is not None else ""
        expected = unit or self.cpu_class.type_name
        if unit and driver == self.cpu_class.type_name:
            text = f"{driver} cannot be plugged by itself, only in a {unit}"
            return HotplugError(text, "not-pluggable", driver=driver)
        text = f"{driver} cannot be plugged: this machine's CPUs are {expected}"
        return HotplugError(text, "wrong-type", driver=driver, expected=expected)

    def _check_node(self, cpu: CPUState, slot: Slot) -> None:
        node, there = cpu.given("node-id"), self.board.node_of(slot) or 0
        if node is not None and node not in (-1, there):
            raise HotplugError(
                f"{cpu.type_name}: node-id={node} is not the node of slot {slot.index}, "
                f"expected {there}",
                "wrong-node",
                expected=there,
            )

    def cancel_plug(self, cpu: CPUState) -> None:
        """Give back the slot that `pre_plug` took."""
        slot = cpu.slot
        with self.hotplug.lock:
            if slot is not None and slot.state is SlotState.PLUGGING:
                self.hotplug.advance(slot, HotplugEventKind.PLUG_FAILED)
                slot.occupant = slot._last_occupant

    def plug(self, cpu: CPUState, hotplugged: bool) -> None:
        """Show `cpu` in the tree, tell the board, and report it present."""
        slot = cpu.slot
        assert slot is not None
        with self.hotplug.lock:
            unit = self._units.at(slot)
            if unit is not None:
                unit.add_thread(cpu, slot)
            else:
                self.devices.add(cpu, hotplugged)
            slot.cpu, slot.occupant = cpu, (cpu.path, cpu.device_id)
            self._tree.show(slot, cpu)
            if unit is None or not unit.filling:
                self.expose(slot, hotplugged)

    def expose(self, slot: Slot, hotplugged: bool) -> None:
        """Let the board know of the CPU of `slot`, and report it present."""
        try:
            # The guest may answer from another thread as soon as the board told it; the lock
            # makes that answer wait until the slot shows the CPU.
            self.board.cpu_plugged(slot, hotplugged)
            self.hotplug.advance(slot, HotplugEventKind.PRESENT)
        except BaseException:
            self.forget(slot)
            raise

    # --- what users do -------------------------------------------------------------------

    def new_cpu(self, device_id: str, properties: Mapping[str, Any]) -> CPUState:
        """A CPU of the machine's type with the machine's properties and these, in no slot yet."""
        cpu: CPUState = self.cpu_class(device_id, **self.cpu_properties)
        for name, value in properties.items():
            cpu.set(name, value)
        return cpu

    def device_add(self, driver: str, id: str = "", **properties: Any) -> CPUState:
        """Plug a new CPU of type `driver` into the slot that its properties name.

        `device_add("Haswell-x86_64-cpu", id="cpu1", socket_id=1, core_id=0, thread_id=0)`.
        Returns the realized CPU, of a unit its first; the guest brings it online later (see
        `events`). Raises `NotFoundError`, `PropertyError`, `ModelError` or `HotplugError`; the
        machine is then as it was, a unit plugged in full or not at all.
        """
        plug = self._plug_cpu if self._units.kind is None else self._unit_plug.plug
        cpus = plug(driver, id, properties)
        self._report_realized(cpus)
        return cpus[0]

    def _report_realized(self, cpus: Sequence[CPUState]) -> None:
        for cpu in cpus:
            try:
                self.on_realized(cpu)
            except Exception as error:  # an observer: the CPU is plugged all the same
                self.hotplug.listener_errors.append(error)

    def _plug_cpu(self, driver: str, id: str, properties: Mapping[str, Any]) -> list[CPUState]:
        own = self.cpu_class
        if driver != own.type_name and self.registry.cpu_class(driver, own.arch) is not own:
            raise self._wrong_type(driver)
        with self.hotplug.lock:
            self.devices.check_id(id)
            cpu = self.new_cpu(id, properties)
            cpu.realize(self, hotplugged=True)
        return [cpu]

    def plug_socket(self, index: int, socket: CPUSocket) -> None:
        """Plug all CPUs of `socket`, made by `sockets.new`, or none: `socket[index]` leads to it.

        Raises what `device_add` raises; the machine is then as it was.
        """
        self._report_realized(
            self._unit_plug.fill(socket, lambda: self.sockets.enter(index, socket))
        )

    def unplug_socket(self, index: int) -> None:
        """Ask the guest to give up all CPUs of this socket; while it has one the link stays.

        Raises `HotplugError`.
        """
        with self.hotplug.lock:
            slot = self.sockets.leaving(index)
            if slot is not None:
                self.request_unplug(slot)

    @property
    def plug_unit_type(self) -> str:
        """The type of what `device_add` plugs here where that is more than a thread; else ""."""
        return self._units.type_name if self._units.kind is not None else ""

    def unit_ids(self, slot: Slot) -> dict[str, int]:
        """The ids by which `device_add` plugs the unit that `slot` is part of."""
        return self._units.ids(slot)

    def cpus(self) -> list[CPUState]:
        """The CPUs that are plugged, in slot order."""
        return [slot.cpu for slot in self.slots if slot.cpu is not None]

    def hotpluggable_cpus(self) -> list[dict[str, Any]]:
        """Every place as QMP's `query-hotpluggable-cpus` shows it, highest first."""
        if self._units.kind is not None:
            return self._units.hotpluggable()
        return self._tree.hotpluggable(self.cpu_class.type_name, self.place_of)

    def events(self, since: int = 0, timeout: float | None = None) -> Iterator[HotplugEvent]:
        """Hot-plug events after number `since`, then new ones as they come.

        Ends when the machine closes, or after `timeout` seconds in which nothing came.
        """
        return self.log.since(since, timeout)

    def subscribe(self, listener: Callable[[HotplugEvent], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on; the returned function ends that."""
        self.hotplug.listeners.append(listener)
        return lambda: self.hotplug.listeners.remove(listener)

    def close(self) -> None:
        """Stop the guest and give everything back; closing twice is harmless."""
        if self.closed:
            return
        self.closed = True
        with ExitStack() as last_first:  # whatever fails, the rest is given back
            last_first.callback(self.log.close)
            if self.owns_accelerator and self.accelerator is not None:
                last_first.callback(self.accelerator.close)
            last_first.callback(self.board.close)
            for cpu in self.cpus():
                last_first.callback(cpu.unrealize)
            last_first.callback(self.board.stop)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
