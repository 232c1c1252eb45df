"""Plug whole units: each CPU of a core or a socket, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from cpufw.core.cpu import CPUState
from cpufw.core.hotplug import SlotState
from cpufw.core.unit import CPUUnit, UnitPlaces

if TYPE_CHECKING:
    from cpufw.core.machine import Machine


class UnitPlug:
    """Fills the units of `machine`; `units` are its places for them."""

    def __init__(self, machine: Machine, units: UnitPlaces) -> None:
        self._machine, self._units = machine, units

    def plug(self, driver: str, id: str, properties: Mapping[str, Any]) -> list[CPUState]:
        """Plug a new unit where `properties` say. Raises what `Machine.device_add` does."""
        unit = self._units.new_unit(driver, id, properties)

        def enter() -> None:
            self._machine.devices.check_id(id)
            self._units.check_free(unit)
            self._machine.devices.add(unit, hotplugged=True)

        return self.fill(unit, enter)

    def fill(self, unit: CPUUnit, enter: Callable[[], None]) -> list[CPUState]:
        """Plug each CPU of `unit` or none, once `enter` has put it into the tree."""
        realized: list[CPUState] = []
        with ExitStack() as undo:
            with self._machine.hotplug.lock:
                enter()
                undo.callback(self._take_back, unit, realized)  # not under the lock, see `eject`
                self._units.enter(unit)
                unit.hotplugged = unit.filling = True
                for slot in unit.slots:
                    cpu = self._machine.new_cpu(unit.device_id, {})
                    cpu.realize(self._machine, slot, hotplugged=True)
                    realized.append(cpu)
                unit.filling = False
                for slot in unit.slots:
                    self._machine.expose(slot, hotplugged=True)
            undo.pop_all()
        return realized

    def _take_back(self, unit: CPUUnit, realized: Sequence[CPUState]) -> None:
        unit.filling = False
        for cpu in reversed(realized):
            slot = cpu.slot
            if slot is not None and slot.state is SlotState.PLUGGING:
                with self._machine.hotplug.lock:
                    self._machine.forget(slot)
                    self._machine.cancel_plug(cpu)
                    cpu.unrealize()
            elif slot is not None:
                self._machine.eject(slot)
        with self._machine.hotplug.lock:
            if unit.slots and self._units.at(unit.slots[0]) is unit:
                self._units.leave(unit)
