"""A machine: slots from a topology, CPUs in them, and the board that surrounds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from cpufw.core.accel import Accelerator, defaults_of, filled_in
from cpufw.core.arch import MachineType
from cpufw.core.board import Outcome
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
from cpufw.core.qom import Object
from cpufw.core.registry import Registry
from cpufw.core.slot_tree import Node, SlotTree
from cpufw.core.topology import Topology
from cpufw.core.unit import CPUUnit, UnitPlaces
from cpufw.errors import HotplugError, ModelError

if TYPE_CHECKING:
    from pathlib import Path


class Machine(Object):
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
        self.observers: list[Callable[[str, Mapping[str, Any]], None]] = []
        """Called with name and data of each event of the run, in QMP's words; see `notify`."""
        arch_id = cpu_class.architecture.arch_id
        self.slots = tuple(
            Slot(index, slot_id, arch_id(topology, slot_id))
            for index, slot_id in enumerate(topology.slots())
        )
        self._models: dict[str, CPUModel] = {}
        self.expansions: dict[tuple[CPUClass, frozenset[tuple[str, Any]]], Expansion] = {}
        Node("container").add_child("machine", self)
        self._devices = DeviceTree(self)
        self._tree = SlotTree(
            self, topology, self.slots, cpu_class.type_name, machine_type.slot_ids
        )
        self._units = UnitPlaces(machine_type.plug_unit, cpu_class.model.name, topology, self.slots)
        self.board = machine_type.board(self, options or {})
        try:
            for unit in self._units.boot_units(topology.cpus):
                self._enter_unit(unit, hotplugged=False)
            for slot in self.slots[: topology.cpus]:
                self._new_cpu("", {}).realize(self, slot)
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
        """The ids that name `slot`: `{"socket-id": 0, "core-id": 1, "thread-id": 0}`."""
        return self._tree.ids(slot)

    def pre_plug(self, cpu: CPUState, slot: Slot | None) -> Slot:
        """Check that `cpu` may go into `slot` (or the one its properties name) and take it.

        Raises `HotplugError`.
        """
        if self.closed:
            raise HotplugError("the machine is closed")
        if type(cpu) is not self.cpu_class:
            raise HotplugError(
                f"{cpu.type_name} cannot be plugged: this machine's CPUs are "
                f"{self.cpu_class.type_name}"
            )
        slot = slot or self._tree.named_by(cpu)
        with self.hotplug.lock:
            if self._units.kind is not None and self._units.at(slot) is None:
                raise HotplugError(
                    f"{cpu.type_name} cannot be plugged by itself, only in a "
                    f"{self._units.type_name}"
                )
            if slot.state is not SlotState.EMPTY:
                holder = slot.occupant[1] or slot.occupant[0] or "a CPU"
                raise HotplugError(
                    f"slot {slot.index} ({slot.id}) is taken by {holder} ({slot.state.value})"
                )
            slot._last_occupant, slot.occupant = slot.occupant, ("", cpu.device_id)
            try:
                self.hotplug.advance(slot, HotplugEventKind.PLUGGING)
            except BaseException:
                slot.occupant = slot._last_occupant
                raise
        return slot

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
                self._devices.add(cpu, hotplugged)
            slot.cpu, slot.occupant = cpu, (cpu.path, cpu.device_id)
            self._tree.show(slot, cpu)
            try:
                # The guest may answer from another thread as soon as the board told it; the lock
                # makes that answer wait until the slot shows the CPU.
                self.board.cpu_plugged(slot, hotplugged)
                self.hotplug.advance(slot, HotplugEventKind.PRESENT)
            except BaseException:
                self._forget(slot)
                raise

    def _enter_unit(self, unit: CPUUnit, hotplugged: bool) -> None:
        self._devices.add(unit, hotplugged)
        self._units.enter(unit)

    def _forget(self, slot: Slot) -> None:
        if slot.cpu is not None:
            slot.cpu.unparent()
        slot.cpu = None
        self._tree.show(slot, None)
        unit = self._units.at(slot)
        if unit is not None and not unit.plugged():
            self._units.leave(unit)

    # --- what users do -------------------------------------------------------------------

    def _new_cpu(self, device_id: str, properties: Mapping[str, Any]) -> CPUState:
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
        plug = self._plug_cpu if self._units.kind is None else self._plug_unit
        cpus = plug(driver, id, properties)
        for cpu in cpus:
            try:
                self.on_realized(cpu)
            except Exception as error:  # an observer: the CPU is plugged all the same
                self.hotplug.listener_errors.append(error)
        return cpus[0]

    def _plug_cpu(self, driver: str, id: str, properties: Mapping[str, Any]) -> list[CPUState]:
        own = self.cpu_class
        if driver != own.type_name and self.registry.cpu_class(driver, own.arch) is not own:
            raise HotplugError(
                f"{driver} cannot be plugged: this machine's CPUs are {self.cpu_class.type_name}"
            )
        with self.hotplug.lock:
            self._devices.check_id(id)
            cpu = self._new_cpu(id, properties)
            cpu.realize(self, hotplugged=True)
        return [cpu]

    def _plug_unit(self, driver: str, id: str, properties: Mapping[str, Any]) -> list[CPUState]:
        unit = self._units.new_unit(driver, id, properties)
        plugged: list[CPUState] = []
        try:
            with self.hotplug.lock:
                self._devices.check_id(id)
                self._units.check_free(unit)
                self._enter_unit(unit, hotplugged=True)
                for slot in unit.slots:
                    cpu = self._new_cpu(id, {})
                    cpu.realize(self, slot, hotplugged=True)
                    plugged.append(cpu)
        except BaseException:
            # Not under the lock, see `eject`.
            for cpu in reversed(plugged):
                if cpu.slot is not None:
                    self.eject(cpu.slot)
            with self.hotplug.lock:
                if self._units.at(unit.slots[0]) is unit:
                    self._units.leave(unit)
            raise
        return plugged

    def device_del(self, id: str) -> None:
        """Ask the guest to give up the CPU that was added as `id`; `events` tell its answer.

        Raises `NotFoundError` or `HotplugError`.
        """
        with self.hotplug.lock:
            self.request_unplug(self._devices.slot_of(id))

    def _plugged_with(self, slot: Slot) -> Sequence[Slot]:
        unit = self._units.at(slot)
        return [slot] if unit is None else unit.plugged()

    def request_unplug(self, slot: Slot) -> None:
        """Ask the guest to give up the CPU of `slot`, and all of the unit that it is part of.

        A request may be repeated.
        """
        if not self.machine_type.can_unplug:
            raise HotplugError(f"machine type {self.machine_type.name} cannot unplug CPUs")
        with self.hotplug.lock:
            slots = self._plugged_with(slot)
            earlier = [each for each in slots if each.state is SlotState.UNPLUG_REQUESTED]
            try:
                for each in slots:
                    self.hotplug.advance(each, HotplugEventKind.UNPLUG_REQUESTED)
                for each in slots:
                    self.board.cpu_unplug_request(each)
            except BaseException as error:
                # The guest was never asked; an earlier request still stands.
                for each in slots:
                    if each not in earlier and each.state is SlotState.UNPLUG_REQUESTED:
                        self.hotplug.advance(each, HotplugEventKind.UNPLUG_WITHDRAWN, str(error))
                raise

    def withdraw_unplug(self, id: str) -> None:
        """Take back a `device_del` that the guest has not seen yet.

        Raises `NotFoundError`, or `HotplugError` if nothing was asked or the guest has seen it.
        """
        with self.hotplug.lock:
            slots = self._plugged_with(self._devices.slot_of(id))
            asked = [slot for slot in slots if slot.state is SlotState.UNPLUG_REQUESTED]
            if not asked:
                raise HotplugError(f"device '{id}' has not been asked to leave")
            for slot in asked:
                if not self.board.cpu_unplug_withdraw(slot):
                    raise HotplugError(f"the guest has seen the request to give up '{id}' already")
                self.hotplug.advance(slot, HotplugEventKind.UNPLUG_WITHDRAWN)

    def cpu_online(self, slot: Slot, detail: str = "") -> None:
        """The guest showed that it runs the CPU of `slot`."""
        with self.hotplug.lock:
            if slot.state is SlotState.PRESENT:
                self.hotplug.advance(slot, HotplugEventKind.ONLINE, detail)

    def unplug_refused(self, slot: Slot, detail: str = "") -> None:
        """The guest keeps the CPU of `slot`."""
        with self.hotplug.lock:
            if slot.state is SlotState.UNPLUG_REQUESTED:
                self.hotplug.advance(slot, HotplugEventKind.UNPLUG_REFUSED, detail)

    def eject(self, slot: Slot) -> None:
        """The guest gave up the CPU of `slot`: stop it and empty the slot."""
        with self.hotplug.lock:
            self.hotplug.advance(slot, HotplugEventKind.EJECTING)
        # Not under the lock: the vCPU's thread may be waiting for it, and must end first.
        self.board.cpu_unplugged(slot)
        with self.hotplug.lock:
            cpu = slot.cpu
            self._forget(slot)
            if cpu is not None:
                cpu.unrealize()
            self.hotplug.advance(slot, HotplugEventKind.UNPLUGGED)

    def cpus(self) -> list[CPUState]:
        """The CPUs that are plugged, in slot order."""
        return [slot.cpu for slot in self.slots if slot.cpu is not None]

    def hotpluggable_cpus(self) -> list[dict[str, Any]]:
        """Every place as QMP's `query-hotpluggable-cpus` shows it, highest first."""
        if self._units.kind is not None:
            return self._units.hotpluggable()
        return self._tree.hotpluggable(self.cpu_class.type_name)

    def events(self, since: int = 0, timeout: float | None = None) -> Iterator[HotplugEvent]:
        """Hot-plug events after number `since`, then new ones as they come.

        Ends when the machine closes, or after `timeout` seconds in which nothing came.
        """
        return self.log.since(since, timeout)

    def subscribe(self, listener: Callable[[HotplugEvent], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on; the returned function ends that."""
        self.hotplug.listeners.append(listener)
        return lambda: self.hotplug.listeners.remove(listener)

    def notify(self, event: str, **data: Any) -> None:
        """Tell the observers: `notify("RESET", guest=True, reason="guest-reset")`.

        `STOP`, `RESUME`, `RESET`, `POWERDOWN`, `SHUTDOWN`, `GUEST_PANICKED`, `ACPI_DEVICE_OST`.
        """
        for observer in tuple(self.observers):
            try:
                observer(event, data)
            except Exception as error:  # an observer must not stop the machine half way
                self.hotplug.listener_errors.append(error)

    def start(self) -> None:
        """Let the guest run."""
        self.board.start()

    def wait(self, timeout: float | None = None) -> Outcome:
        """Wait up to `timeout` seconds for the guest to end."""
        return self.board.wait(timeout)

    def stop(self) -> None:
        """Stop the guest for good; what it was doing is lost."""
        self.board.stop()

    def describe(self) -> str:
        """What each CPU was doing: registers and code; for a machine that is stopped."""
        return self.board.describe()

    def report(self) -> list[str]:
        """What there is to say of the run beyond its outcome, a sentence each."""
        return self.board.report()

    @property
    def status(self) -> str:
        """What the guest does: `prelaunch`, `running`, `paused`, `shutdown`, `internal-error`."""
        return self.board.status

    def pause(self) -> None:
        """Hold the CPUs; the guest's clock stands still. Raises `GuestError` if one is stuck."""
        self.board.pause()

    def resume(self) -> None:
        """Let a paused guest go on."""
        self.board.resume()

    def reset(self) -> None:
        """Reset the machine: the guest begins again, with the CPUs that are plugged."""
        self.board.reset()

    def nmi(self) -> None:
        """Give every CPU a non-maskable interrupt."""
        self.board.nmi()

    def save(self, path: str | Path, *, compress: bool = False) -> None:
        """Save the machine in a file, running or paused; the guest is held meanwhile.

        With `compress` smaller (zstd). Raises `StateError`; a file that was at `path` is then
        still there in full. `cpufw.load_machine(path)` makes it again.
        """
        self.board.save(path, compress=compress)

    def powerdown(self) -> None:
        """Press the power button; whether the guest listens is its own matter."""
        self.board.powerdown()

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
