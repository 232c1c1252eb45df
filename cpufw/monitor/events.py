"""Hot-plug events in QMP's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cpufw.core.hotplug import HotplugEvent, HotplugEventKind
from cpufw.core.unit import CPUUnit

if TYPE_CHECKING:
    from cpufw.core.hotplug import Slot
    from cpufw.core.machine import Machine
    from cpufw.core.qom import Object
    from cpufw.monitor.event_types import ACPIOSTInfo


class HotplugEvents:
    """Turns the hot-plug events of `machine` into QMP's and hands them to `emit`."""

    def __init__(self, machine: Machine, emit: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._machine, self._emit = machine, emit
        self._leaving: dict[int, tuple[list[str], CPUUnit | None, str]] = {}

    def on_event(self, event: HotplugEvent) -> None:
        """One event of the machine, on the thread that it happens on."""
        if event.kind is HotplugEventKind.EJECTING:
            self._remember(event.slot)
        elif event.kind is HotplugEventKind.UNPLUGGED:
            self._tell_deleted(event)
        elif event.kind is HotplugEventKind.UNPLUG_REFUSED and not self._has_acpi:
            who = {"device": event.device} if event.device else {}
            self._emit("DEVICE_UNPLUG_GUEST_ERROR", {**who, "path": event.cpu})

    @property
    def _has_acpi(self) -> bool:
        """Whether the guest refuses by _OST, which is an event of its own."""
        return bool(self._machine.board.ospm_status())

    def _remember(self, index: int) -> None:
        """What is there now and will be gone: the CPU's children, and the unit it is part of."""
        cpu = self._machine.slots[index].cpu
        if cpu is not None:
            unit = cpu.parent if isinstance(cpu.parent, CPUUnit) else None
            path = unit.path if unit is not None else ""
            self._leaving[index] = list(_inside(cpu)), unit, path

    def _tell_deleted(self, event: HotplugEvent) -> None:
        children, unit, unit_path = self._leaving.pop(event.slot, ([], None, ""))
        for path in children:
            self._emit("DEVICE_DELETED", {"path": path})
        who = {"device": event.device} if event.device and unit is None else {}
        self._emit("DEVICE_DELETED", {**who, "path": event.cpu})
        if unit is not None and not unit.plugged():
            who = {"device": unit.device_id} if unit.device_id else {}
            self._emit("DEVICE_DELETED", {**who, "path": unit_path})

    def ost(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The data of ACPI_DEVICE_OST."""
        return {"info": ost_info(data["slot"], data["source"], data["status"])}


def ost_info(slot: Slot, source: int, status: int) -> ACPIOSTInfo:
    """What the guest said last of a slot."""
    info: ACPIOSTInfo = {
        "source": source,
        "status": status,
        "slot": str(slot.index),
        "slot-type": "CPU",
    }
    if slot.cpu is not None and slot.cpu.device_id:
        info["device"] = slot.cpu.device_id
    return info


def _inside(node: Object) -> Iterator[str]:
    for _, child in node.children():
        yield from _inside(child)
        yield child.path
