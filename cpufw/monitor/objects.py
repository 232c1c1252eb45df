"""What `object-add` makes: objects of `/objects` that users create, and sockets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.core.devices import DEVICE_ID
from cpufw.core.qom import Object, Property
from cpufw.core.sockets import CPUSocket
from cpufw.core.unit import CPUUnit
from cpufw.monitor.errors import QmpError

if TYPE_CHECKING:
    from cpufw.core.machine import Machine

USER_CREATABLE = "user-creatable"
"""The interface of types that `object-add` takes."""


@dataclass(frozen=True)
class ObjectType:
    """A type of objects that only hold what they were given.

    `required` are the properties that must be given; `check` returns what is wrong with the
    values, or None.
    """

    name: str
    parent: str
    properties: tuple[Property, ...]
    required: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any]], str | None] = lambda _values: None


class UserObject(Object):
    """An object of `kind` with these values; what was given once stays."""

    def __init__(self, kind: ObjectType, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.type_name = kind.name
        for spec in kind.properties:
            default = values.get(spec.name, spec.default)
            self.add_property(Property(spec.name, spec.type, default=default, writable=False))


def _size_problem(size: Any) -> str | None:
    return None if size else "a memory backend has at least one byte"


def _file_problem(values: Mapping[str, Any], name: str) -> str | None:
    given = values.get(name)
    if given is None:
        return None
    try:
        with Path(given).open("rb") as file:
            file.read(1)
    except OSError as error:
        return f"Could not open '{given}': {error.strerror}"
    return None


def _secret_problem(values: Mapping[str, Any]) -> str | None:
    if ("data" in values) == ("file" in values):
        one = "data" in values
        return (
            "'file' and 'data' exclude each other"
            if one
            else ("Either 'file' or 'data' must be provided")
        )
    return _file_problem(values, "file")


_MEMORY = (
    Property("size", "uint64", "in bytes", check=_size_problem),
    Property("share", "bool", "other processes can see what is written", False),
    Property("prealloc", "bool", "all of it at the start", False),
)
_HUGE = Property("hugetlb", "bool", "pages from the host's pool of large ones", False)

OBJECT_TYPES: Mapping[str, ObjectType] = {
    each.name: each
    for each in (
        ObjectType("memory-backend-ram", "memory-backend", _MEMORY, ("size",)),
        ObjectType("memory-backend-memfd", "memory-backend", (*_MEMORY, _HUGE), ("size",)),
        ObjectType(
            "rng-random",
            "rng-backend",
            (Property("filename", "string", "where numbers come from", "/dev/urandom"),),
            check=lambda values: _file_problem(values, "filename"),
        ),
        ObjectType(
            "secret",
            "secret_common",
            tuple(
                Property(name, "string", text, default)
                for name, text, default in (
                    ("data", "the secret itself", None),
                    ("file", "a file that holds it", None),
                    ("format", "raw or base64", "raw"),
                    ("keyid", "the secret that this one is encrypted with", None),
                    ("iv", "what that began with", None),
                )
            ),
            check=_secret_problem,
        ),
    )
}
"""The types by name; sockets come on top, from the machine."""


def object_add(machine: Machine, qom_type: str, id: str, properties: Mapping[str, Any]) -> Object:
    """Make an object `/objects/<id>`. Raises `QmpError`, or what a socket's type raises."""
    if not DEVICE_ID.match(id):
        raise QmpError("Parameter 'id' expects an identifier")
    kind = OBJECT_TYPES.get(qom_type)
    if kind is None and not qom_type.endswith("-socket"):
        raise QmpError(f"Parameter 'qom-type' does not accept value '{qom_type}'")
    made = machine.sockets.new(qom_type, **properties) if kind is None else _made(kind, properties)
    with machine.hotplug.lock:
        if machine.objects.child(id) is not None:
            raise QmpError(f"attempt to add duplicate property '{id}' to object (type 'container')")
        machine.objects.add_child(id, made)
    return made


def object_del(machine: Machine, id: str) -> None:
    """Take `/objects/<id>` away. Raises `QmpError` if it is in use, or not a user's."""
    with machine.hotplug.lock:
        found = machine.objects.child(id)
        if found is None:
            raise QmpError(f"object '{id}' not found")
        if not isinstance(found, UserObject | CPUSocket):
            raise QmpError(f"object '{id}' is the machine's own, it cannot be deleted")
        if isinstance(found, CPUUnit) and found.slots:
            raise QmpError(f"object '{id}' is in use, can not be deleted")
        found.unparent()


def _made(kind: ObjectType, properties: Mapping[str, Any]) -> UserObject:
    specs = {spec.name: spec for spec in kind.properties}
    for name in properties:
        if name not in specs:
            raise QmpError(f"Parameter '{name}' is unexpected")
    for name in kind.required:
        if name not in properties:
            raise QmpError(f"Parameter '{name}' is missing")
    values = {name: _value(specs[name], value) for name, value in properties.items()}
    for name, value in values.items():
        check = specs[name].check
        if check is not None and check(value):
            raise QmpError(f"property '{name}' of {kind.name} doesn't take value '{value}'")
    wrong = kind.check(values)
    if wrong:
        raise QmpError(wrong)
    return UserObject(kind, values)


def _value(spec: Property, value: Any) -> Any:
    expected = {"bool": bool, "string": str}.get(spec.type)
    if expected is not None:
        if not isinstance(value, expected):
            shown = "boolean" if expected is bool else "string"
            raise QmpError(f"Invalid parameter type for '{spec.name}', expected: {shown}")
        return value
    low, high = spec.bounds()
    in_range = type(value) is int and (low is None or value >= low)
    if not in_range or (high is not None and value > high):
        raise QmpError(f"Parameter '{spec.name}' expects {spec.type}")
    return value
