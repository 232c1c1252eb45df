"""How CPUs leave a machine: the guest is asked, answers, and the slot is empty."""

from __future__ import annotations

from collections.abc import Sequence

from cpufw.core.arch import MachineType
from cpufw.core.devices import DeviceTree
from cpufw.core.hotplug import HotplugEventKind, Slot, SlotState
from cpufw.core.run_control import RunControl
from cpufw.core.slot_tree import SlotTree
from cpufw.core.unit import UnitPlaces
from cpufw.errors import HotplugError


class Unplug(RunControl):
    """A machine whose guest is asked to give up CPUs."""

    machine_type: MachineType
    devices: DeviceTree
    _tree: SlotTree
    _units: UnitPlaces

    def device_del(self, id: str) -> None:
        """Ask the guest to give up the CPU that was added as `id`; `events` tell its answer.

        Raises `NotFoundError` or `HotplugError`.
        """
        with self.hotplug.lock:
            self.request_unplug(self.devices.slot_of(id))

    def _plugged_with(self, slot: Slot) -> Sequence[Slot]:
        unit = self._units.at(slot)
        return [slot] if unit is None else unit.plugged()

    def request_unplug(self, slot: Slot) -> None:
        """Ask the guest to give up the CPU of `slot`, and all of the unit that it is part of.

        A request may be repeated.
        """
        if not self.machine_type.can_unplug:
            name = self.machine_type.name
            text = f"machine type {name} cannot unplug CPUs"
            raise HotplugError(text, "cannot-unplug", machine=name)
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
            slots = self._plugged_with(self.devices.slot_of(id))
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
            self.forget(slot)
            if cpu is not None:
                cpu.unrealize()
            self.hotplug.advance(slot, HotplugEventKind.UNPLUGGED)

    def forget(self, slot: Slot) -> None:
        """Take the CPU out of `slot`, and its unit out of the tree with the last."""
        if slot.cpu is not None:
            slot.cpu.unparent()
        slot.cpu = None
        self._tree.show(slot, None)
        unit = self._units.at(slot)
        if unit is not None and not unit.plugged():
            self._units.leave(unit)
