"""Where devices are in the object tree: QEMU's containers, and the ids that users gave."""

from __future__ import annotations

import re
from collections import Counter

from cpufw.core.cpu import CPUState
from cpufw.core.hotplug import Slot
from cpufw.core.qom import Object
from cpufw.core.slot_tree import Node
from cpufw.core.unit import CPUUnit
from cpufw.errors import HotplugError, NotFoundError

DEVICE_ID = re.compile(r"[A-Za-z][A-Za-z0-9._-]*\Z")
"""An id as QEMU accepts it: it must not be mistaken for a path or an index."""


class DeviceTree:
    """What was plugged into `machine`: by its id under `peripheral`, else by a number.

    Boot devices are in `unattached`, hot-plugged ones without an id in `peripheral-anon`; a number
    is never given twice.
    """

    def __init__(self, machine: Object) -> None:
        self._containers = {
            name: Node("container") for name in ("unattached", "peripheral", "peripheral-anon")
        }
        self._numbered: Counter[str] = Counter()
        for name, container in self._containers.items():
            machine.add_child(name, container)

    def check_id(self, device_id: str) -> None:
        """Raise `HotplugError` unless a device may get this id; no id is fine."""
        if not device_id:
            return
        if not DEVICE_ID.match(device_id):
            raise HotplugError(
                f"device id '{device_id}' is not valid, "
                "expected a letter, then letters, digits, . _ -",
                "invalid-id",
                id=device_id,
            )
        if self._containers["peripheral"].child(device_id) is not None:
            raise HotplugError(f"device id '{device_id}' is in use", "duplicate-id", id=device_id)

    def add(self, device: CPUState | CPUUnit, hotplugged: bool) -> None:
        """Put `device` where it belongs."""
        if device.device_id:
            self._containers["peripheral"].add_child(device.device_id, device)
            return
        self._number("peripheral-anon" if hotplugged else "unattached", device)

    def add_built_in(self, device: Object) -> None:
        """Put a device of the board where those are that were there from the start."""
        self._number("unattached", device)

    def built_in(self) -> list[Object]:
        """The devices that were there from the start, in their order."""
        return [device for _, device in self._containers["unattached"].children()]

    def _number(self, name: str, device: Object) -> None:
        self._containers[name].add_child(f"device[{self._numbered[name]}]", device)
        self._numbered[name] += 1

    def slot_of(self, device_id: str) -> Slot:
        """The slot of this device, of a unit its first that holds a CPU. Raises `NotFoundError`."""
        device = self._containers["peripheral"].child(device_id)
        if isinstance(device, CPUUnit):
            return device.plugged()[0]
        if not isinstance(device, CPUState) or device.slot is None:
            known = dict(self._containers["peripheral"].children())
            raise NotFoundError("device id", device_id, known)
        return device.slot
