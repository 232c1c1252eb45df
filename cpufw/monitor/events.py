"""Hot-plug events in QMP's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cpufw.core.hotplug import HotplugEvent, HotplugEventKind


class HotplugEvents:
    """Turns a machine's hot-plug events into QMP's and hands them to `emit`."""

    def __init__(self, emit: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._emit = emit

    def on_event(self, event: HotplugEvent) -> None:
        """One event of the machine."""
        who = {"device": event.device} if event.device else {}
        if event.kind is HotplugEventKind.UNPLUGGED:
            self._emit("DEVICE_DELETED", {**who, "path": event.cpu})
        elif event.kind is HotplugEventKind.UNPLUG_REFUSED:
            self._emit("DEVICE_UNPLUG_GUEST_ERROR", {**who, "path": event.cpu})

    def ost(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The data of ACPI_DEVICE_OST."""
        return {"info": ost_info(data["slot"], data["source"], data["status"])}


def ost_info(slot: Any, source: int, status: int) -> dict[str, Any]:
    """QMP's ACPIOSTInfo of a slot."""
    who = {"device": slot.cpu.device_id} if slot.cpu is not None and slot.cpu.device_id else {}
    place = {"slot": str(slot.index), "slot-type": "CPU"}
    return {**who, "source": source, "status": status, **place}
