"""What a guest says of a CPU with ACPI's _OST, and what that means for the slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpufw.core.hotplug import Slot
    from cpufw.core.machine import Machine

# ACPI 6.5, 6.3.5 _OST: source events and status codes that a slot's life depends on.
_EJECT_REQUEST, _EJECTION_PROCESSING = 0x3, 0x103
_SUCCESS = 0x0
_EJECT_IN_PROGRESS = frozenset({0x84, 0x85})


def take_ost(machine: Machine, slot: Slot, event: int, status: int) -> None:
    """Pass the guest's word on: its CPU is online, stays against a request, or neither."""
    machine.notify("ACPI_DEVICE_OST", slot=slot, source=event, status=status)
    detail = f"_OST event {event:#x}, status {status:#x}"
    if event in (_EJECT_REQUEST, _EJECTION_PROCESSING):
        if status != _SUCCESS and status not in _EJECT_IN_PROGRESS:
            machine.unplug_refused(slot, detail)
            return
    elif status == _SUCCESS:
        machine.cpu_online(slot, detail)
        return
    machine.hotplug.report(slot, detail)
