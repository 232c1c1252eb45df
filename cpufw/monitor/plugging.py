"""`device_add` and `device_del`: QEMU's checks in QEMU's order, and its words."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cpufw.core.cpu import CPUState
from cpufw.core.unit import CPUUnit
from cpufw.errors import NotFoundError, ReasonedError
from cpufw.monitor.errors import DeviceNotFoundError, QmpError
from cpufw.monitor.schema import check
from cpufw.monitor.type_tree import DEVICE, TypeTree
from cpufw.monitor.wording import worded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cpufw.core.machine import Machine
    from cpufw.core.qom import Property
    from cpufw.monitor.monitor import Monitor


def plug(
    monitor: Monitor,
    driver: str,
    id: str,
    properties: Mapping[str, Any],
    bus: str = "",
    typed: bool = False,
) -> None:
    """Plug a CPU, or a unit of them. Raises `QmpError`.

    `typed`: values have their JSON types, as QMP wants it; otherwise they may be text.
    """
    machine = monitor.machine
    specs = _known(monitor, driver)
    if not machine.machine_type.can_plug:
        raise QmpError("Parameter 'driver' expects a pluggable device type")
    if bus:
        raise QmpError(f"Bus '{bus}' not found")
    if typed:
        for name, value in properties.items():
            if name in specs:
                _check_type(name, value, specs[name])
    with words(machine):
        machine.device_add(driver, id=id, **properties)


def unplug(monitor: Monitor, id: str) -> None:
    """Ask the guest for the device of this id or path. Raises `QmpError`."""
    machine = monitor.machine
    with machine.hotplug.lock, words(machine):
        if id.startswith("/"):
            try:
                device = machine.resolve(id)
            except NotFoundError:
                device = None
            if isinstance(device, CPUUnit) and device.plugged():
                machine.request_unplug(device.plugged()[0])
                return
            if isinstance(device, CPUState) and device.slot is not None:
                machine.request_unplug(device.slot)
                return
            if device is not None:
                raise QmpError(f"{id} is not a hotpluggable device")
        else:
            try:
                machine.device_del(id)
                return
            except NotFoundError:
                pass
    raise DeviceNotFoundError(f"Device '{id}' not found")


@contextmanager
def words(machine: Machine) -> Iterator[None]:
    """What this block raises is told in QEMU's words."""
    try:
        yield
    except ReasonedError as error:
        raise QmpError(worded(error, machine.cpu_class.architecture, machine.topology)) from None


def _known(monitor: Monitor, driver: str) -> Mapping[str, Property]:
    """The properties that a device of this type takes, as far as their types are known."""
    machine = monitor.machine
    own = machine.cpu_class
    kind = machine.machine_type.plug_unit
    if kind is not None and driver.endswith(kind.type_name.format(model="")):
        return {}
    try:
        return machine.registry.cpu_class(driver, own.arch).properties
    except NotFoundError:
        raise _not_pluggable(monitor.types, driver) from None


def _not_pluggable(types: TypeTree, driver: str) -> QmpError:
    if driver not in types or not types.is_a(types[driver], DEVICE):
        return QmpError(f"'{driver}' is not a valid device model name")
    wanted = "non-abstract" if types[driver].abstract else "pluggable"
    return QmpError(f"Parameter 'driver' expects a {wanted} device type")


def _check_type(name: str, value: Any, spec: Property) -> None:
    check(value, {"bool": bool, "string": str}.get(spec.type, int), name)
