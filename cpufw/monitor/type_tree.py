"""The types of objects, as QMP's qom-list-types shows them, from what is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from cpufw.core.qom import DEVICE_PROPERTIES, Property
from cpufw.core.sockets import SOCKET_TYPE
from cpufw.monitor.objects import OBJECT_TYPES, USER_CREATABLE

if TYPE_CHECKING:
    from cpufw.core.machine import Machine
    from cpufw.framework import Framework

DEVICE = "device"
_TYPE = Property("type", "string")


@dataclass(frozen=True)
class TypeInfo:
    """One type; `properties` gives its own and those of what it extends, but for `type`."""

    name: str
    parent: str = ""
    abstract: bool = False
    interfaces: tuple[str, ...] = ()
    properties: Callable[[], Iterable[Property]] = tuple


_ABSTRACT = {
    "object": "",
    DEVICE: "object",
    "sys-bus-device": DEVICE,
    "isa-device": DEVICE,
    "pci-device": DEVICE,
    "virtio-device": DEVICE,
    "cpu": DEVICE,
    SOCKET_TYPE: DEVICE,
    "machine": "object",
    "chardev": "object",
    "chardev-fd": "chardev",
    "memory-backend": "object",
    # There is none here; libvirt 11.3 asks for its properties and does not survive an error.
    "memory-backend-file": "memory-backend",
    "rng-backend": "object",
    "secret_common": "object",
}
"""The types that exist to be extended, with what each extends."""

_CONCRETE = {
    "accel": "object",
    "container": "object",
    "chardev-null": "chardev",
    "chardev-pty": "chardev",
    "chardev-socket": "chardev",
    "chardev-file": "chardev-fd",
    "chardev-stdio": "chardev-fd",
    "none-machine": "machine",
}


class TypeTree:
    """The types there are on `machine`: QEMU's bases, and what `framework` and it bring."""

    def __init__(self, framework: Framework, machine: Machine) -> None:
        self._types: dict[str, TypeInfo] = {}
        for name, parent in _ABSTRACT.items():
            self._add(TypeInfo(name, parent, abstract=True, properties=_of_device(name, parent)))
        for name, parent in _CONCRETE.items():
            self._add(TypeInfo(name, parent))
        for kind in framework.accelerators:
            self._add(TypeInfo(f"{kind.name}-accel", "accel"))
        for each in OBJECT_TYPES.values():
            shown = each.properties
            self._add(
                TypeInfo(each.name, each.parent, False, (USER_CREATABLE,), lambda p=shown: p)  # type: ignore[misc]
            )
        self._add_machines(framework, machine)
        self._add_cpus(machine)
        self._add_topology(machine)

    def _add(self, info: TypeInfo) -> None:
        self._types.setdefault(info.name, info)

    def _add_machines(self, framework: Framework, machine: Machine) -> None:
        kinds = [kind for kind in framework.machine_types.values() if kind.accel is not None]
        for kind in (*kinds, machine.machine_type):
            if kind.arch != machine.cpu_class.arch:
                continue
            chain = (*kind.bases, "machine")
            for base, parent in pairwise(chain):
                self._add(TypeInfo(base, parent, abstract=True))
            self._add(TypeInfo(f"{kind.name}-machine", chain[0]))
            for device, parent in kind.devices.items():
                self._add(TypeInfo(device, parent, properties=_of_device(device, parent)))

    def _add_cpus(self, machine: Machine) -> None:
        registry, arch = machine.registry, machine.cpu_class.arch
        base = registry.suffix(arch)

        def properties(name: str) -> Callable[[], Iterable[Property]]:
            return lambda: _unlike_aliases(registry.cpu_class(name, arch).properties.items())

        self._add(TypeInfo(base, "cpu", True, properties=properties(machine.cpu_class.type_name)))
        for name in registry.type_names(arch):
            self._add(TypeInfo(name, base, properties=properties(name)))

    def _add_topology(self, machine: Machine) -> None:
        sockets = machine.sockets
        for level in machine.topology.levels:
            parent = SOCKET_TYPE if level.value == "socket" else "object"
            self._add(TypeInfo(level.value, parent))
        if sockets.contents:
            contents = [Property(name, "int") for name in (*sockets.contents, "socket-id")]
            shown = (*DEVICE_PROPERTIES, *contents)
            creatable = (USER_CREATABLE,)
            self._add(TypeInfo(sockets.type_name, SOCKET_TYPE, False, creatable, lambda: shown))
        unit = machine.plug_unit_type
        if unit:
            self._add(TypeInfo(unit, DEVICE, properties=lambda: DEVICE_PROPERTIES))

    def __getitem__(self, name: str) -> TypeInfo:
        return self._types[name]

    def __contains__(self, name: str) -> bool:
        return name in self._types

    def __iter__(self) -> Iterator[TypeInfo]:
        return iter(self._types.values())

    def ancestry(self, info: TypeInfo) -> Iterator[str]:
        """The type, all that it extends, and their interfaces."""
        name = info.name
        while name:
            each = self._types[name]
            yield name
            yield from each.interfaces
            name = each.parent

    def is_a(self, info: TypeInfo, base: str) -> bool:
        """Whether the type is `base`, extends it, or implements it."""
        return base in self.ancestry(info)

    def properties(self, info: TypeInfo) -> list[Property]:
        """All properties of objects of this type."""
        return [_TYPE, *info.properties()]


def _of_device(name: str, parent: str) -> Callable[[], Iterable[Property]]:
    is_device = name == DEVICE or parent == DEVICE or _ABSTRACT.get(parent) == DEVICE
    return (lambda: DEVICE_PROPERTIES) if is_device else tuple


def _unlike_aliases(named: Iterable[tuple[str, Property]]) -> Iterator[Property]:
    """Each under every name that it has."""
    for name, spec in named:
        yield spec if spec.name == name else replace(spec, name=name)
