"""Commands about the tree of objects, and about the types that they can be of."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from cpufw.core.qom import DEVICE_PROPERTIES, Object
from cpufw.monitor.command import command
from cpufw.monitor.errors import DeviceNotFoundError, QmpError
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.type_tree import DEVICE, TypeInfo, TypeTree

ObjectPropertyInfo = TypedDict(
    "ObjectPropertyInfo",
    {
        "name": str,
        "type": str,
        "description": NotRequired[str],
        "default-value": NotRequired[Any],
    },
)


class ObjectTypeInfo(TypedDict):
    name: str
    abstract: NotRequired[bool]
    parent: NotRequired[str]


@command("qom-list")
def qom_list(monitor: Monitor, path: str) -> list[ObjectPropertyInfo]:
    """The properties of the object at `path`; children and links are among them."""
    with monitor.machine.hotplug.lock:
        found = _matches(monitor, path)
        if len(found) > 1:
            raise QmpError(f"Path '{path}' is ambiguous")
        node = _only(found, path)
        return [{"name": name, "type": kind} for name, kind in node.list_properties().items()]


@command("qom-get")
def qom_get(monitor: Monitor, path: str, property: str) -> Any:
    """The value of a property; a path for a child or a link, `""` for a link to nothing."""
    with monitor.machine.hotplug.lock:
        node = object_at(monitor, path)
        _check_there(node, property)
        return node.get(property)


@command("qom-set", blocks=True)
def qom_set(monitor: Monitor, path: str, property: str, value: Any) -> None:
    """Set a property. A link is set to the object at a path, or to nothing with `""`."""
    node = object_at(monitor, path)
    _check_there(node, property)
    link = node.links().get(property)
    if link is not None and link.on_set is not None:
        if not isinstance(value, str):
            raise QmpError(f"Invalid parameter type for '{property}', expected: string")
        node.set(property, object_at(monitor, value) if value else None)
        return
    spec = node.property_specs().get(property)
    if spec is None or not spec.writable:
        raise QmpError(f"Property '{node.type_name}.{property}' is not writable")
    if getattr(node, "realized", False):
        named = node.parent is not None and node.parent.name == "peripheral"
        who = f"device '{node.name}'" if named else "anonymous device"
        raise QmpError(
            f"Attempt to set property '{property}' on {who} (type '{node.type_name}') "
            "after it was realized"
        )
    node.set(property, value)


@command("qom-list-types")
def qom_list_types(
    monitor: Monitor, implements: str | None = None, abstract: bool = False
) -> list[ObjectTypeInfo]:
    """The types, those that extend or implement one, or with `abstract` also the abstract ones."""
    tree = monitor.types
    shown = []
    for each in tree:
        if each.abstract and not abstract:
            continue
        if implements is not None and not tree.is_a(each, implements):
            continue
        entry: ObjectTypeInfo = {"name": each.name}
        if each.abstract:
            entry["abstract"] = True
        if each.parent:
            entry["parent"] = each.parent
        shown.append(entry)
    return shown


@command("qom-list-properties")
def qom_list_properties(monitor: Monitor, typename: str) -> list[ObjectPropertyInfo]:
    """The properties that objects of a type have."""
    tree = monitor.types
    if typename not in tree:
        raise DeviceNotFoundError(f"Class '{typename}' not found")
    return _shown(tree, tree[typename], frozenset())


@command("device-list-properties")
def device_list_properties(monitor: Monitor, typename: str) -> list[ObjectPropertyInfo]:
    """The properties of a device type that `device_add` takes or that tell of it."""
    tree = monitor.types
    if typename not in tree:
        raise DeviceNotFoundError(f"Device '{typename}' not found")
    info = tree[typename]
    if info.abstract or not tree.is_a(info, DEVICE):
        raise QmpError("Parameter 'typename' expects a non-abstract device type")
    hidden = {"type", *(spec.name for spec in DEVICE_PROPERTIES)}
    return _shown(tree, info, frozenset(hidden))


def _shown(tree: TypeTree, info: TypeInfo, hidden: frozenset[str]) -> list[ObjectPropertyInfo]:
    shown = []
    for spec in tree.properties(info):
        if spec.name in hidden:
            continue
        entry: ObjectPropertyInfo = {"name": spec.name, "type": spec.type}
        if spec.description:
            entry["description"] = spec.description
        if spec.default is not None and hidden:
            entry["default-value"] = spec.default
        shown.append(entry)
    return shown


def object_at(monitor: Monitor, path: str) -> Object:
    """The object at an absolute path, or the only one that a partial path fits.

    Raises `DeviceNotFoundError`, as QEMU does also where several fit.
    """
    with monitor.machine.hotplug.lock:
        return _only(_matches(monitor, path), path)


def _matches(monitor: Monitor, path: str) -> list[Object]:
    root = monitor.machine.parent
    assert root is not None
    if not path.startswith("/"):
        return root.partial(path)
    node = root.follow(filter(None, path.split("/")))
    return [] if node is None else [node]


def _only(found: list[Object], path: str) -> Object:
    if len(found) != 1:
        raise DeviceNotFoundError(f"Device '{path}' not found")
    return found[0]


def _check_there(node: Object, property: str) -> None:
    if not node.has(property):
        raise QmpError(f"Property '{node.type_name}.{property}' not found")
