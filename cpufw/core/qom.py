"""The object tree: typed properties, children, links and canonical paths (QEMU's QOM)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cpufw.errors import NotFoundError, PropertyError


@dataclass(frozen=True, slots=True)
class Property:
    """One typed property of an object.

    `type` is QEMU's spelling: `bool`, `int`, `uint32`, `string`. `low` and `high` bound integers;
    `check` returns what is wrong with a value, or None.
    """

    name: str
    type: str
    description: str = ""
    default: Any = None
    low: int | None = None
    high: int | None = None
    check: Callable[[Any], str | None] | None = None
    writable: bool = True

    def parse(self, value: Any, owner: str) -> Any:
        """`value`, converted from text where it is text. Raises `PropertyError`."""
        converted = self._convert(value)
        if converted is None:
            expected = {"bool": "on or off", "string": "text"}.get(self.type, "a whole number")
            raise PropertyError(f"{owner}.{self.name}={value} is not valid, expected {expected}")
        if isinstance(converted, int) and self.type != "bool":
            low, high = self.bounds()
            if (low is not None and converted < low) or (high is not None and converted > high):
                expected = f"{low} to {high}" if high is not None else f"at least {low}"
                raise PropertyError(
                    f"{owner}.{self.name}={value} is out of range, expected {expected}"
                )
        wrong = self.check(converted) if self.check else None
        if wrong:
            raise PropertyError(f"{owner}.{self.name}={value} is not valid: {wrong}")
        return converted

    def bounds(self) -> tuple[int | None, int | None]:
        """The lowest and highest value allowed, None for no limit; a `uint…` has its own."""
        low, high = self.low, self.high
        if self.type.startswith("uint"):
            low = 0 if low is None else low
            high = (1 << int(self.type.removeprefix("uint"))) - 1 if high is None else high
        return low, high

    def _convert(self, value: Any) -> Any:
        if self.type == "bool":
            known = _BOOLEANS.get(value) if isinstance(value, str) else None
            return value if isinstance(value, bool) else known
        if self.type == "string":
            return value if isinstance(value, str) else None
        if isinstance(value, bool):
            return None
        if isinstance(value, str):
            try:
                return int(value, 0)
            except ValueError:
                return None
        return value if isinstance(value, int) else None


_BOOLEANS = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


class Object:
    """A node of the tree: it has a type name, properties, a parent and named children."""

    type_name: str = "object"

    def __init__(self) -> None:
        self.parent: Object | None = None
        self.name = ""
        self._children: dict[str, Object] = {}
        self._links: dict[str, tuple[str, Object | None]] = {}
        self._values: dict[str, Any] = {}

    def property_specs(self) -> Mapping[str, Property]:
        """The value properties this object has, by name."""
        return {}

    def add_child(self, name: str, child: Object) -> None:
        """Put `child` under this object. Raises `PropertyError` if the name is taken."""
        if name in self._children or name in self._links:
            raise PropertyError(f"{self.path} already has a child '{name}'")
        if child.parent is not None:
            raise PropertyError(f"{child.path} already has a parent")
        self._children[name] = child
        child.parent, child.name = self, name

    def unparent(self) -> None:
        """Take this object out of the tree; links to it are cleared by their owners."""
        if self.parent is not None:
            del self.parent._children[self.name]
            self.parent, self.name = None, ""

    def add_link(self, name: str, type_name: str, target: Object | None = None) -> None:
        """Add a link property; its value is another object of the tree or None."""
        if name in self._children or name in self._links:
            raise PropertyError(f"{self.path} already has a property '{name}'")
        self._links[name] = (type_name, target)

    def set_link(self, name: str, target: Object | None) -> None:
        """Point the link `name` at `target`, or at nothing."""
        type_name, _ = self._links[name]
        self._links[name] = (type_name, target)

    @property
    def path(self) -> str:
        """The canonical path: `/machine/peripheral/cpu1`; `/` for a root."""
        parts = []
        node: Object = self
        while node.parent is not None:
            parts.append(node.name)
            node = node.parent
        return "/" + "/".join(reversed(parts))

    def child(self, name: str) -> Object | None:
        """The child of this name, None if there is none."""
        return self._children.get(name)

    def children(self) -> Iterator[tuple[str, Object]]:
        """Name and object of each child, in the order they were added."""
        return iter(tuple(self._children.items()))

    def resolve(self, path: str) -> Object:
        """The object at `path`, following children and links.

        An absolute path starts at the root of this tree. Raises `NotFoundError`.
        """
        node: Object = self
        if path.startswith("/"):
            while node.parent is not None:
                node = node.parent
        for part in filter(None, path.split("/")):
            link = node._links.get(part)
            step = node._children.get(part) or (link[1] if link else None)
            if step is None:
                raise NotFoundError("object", path, hint=f"{node.path} has no '{part}'")
            node = step
        return node

    def list_properties(self) -> dict[str, str]:
        """Name and type of every property, as QMP's `qom-list` shows them."""
        found = {"type": "string"}
        found.update({name: spec.type for name, spec in self.property_specs().items()})
        found.update({name: f"child<{node.type_name}>" for name, node in self._children.items()})
        found.update({name: f"link<{type_name}>" for name, (type_name, _) in self._links.items()})
        return found

    def get(self, name: str) -> Any:
        """The value of a property; children and links give canonical paths, `""` when empty.

        Raises `PropertyError`.
        """
        if name == "type":
            return self.type_name
        if name in self._children:
            return self._children[name].path
        if name in self._links:
            target = self._links[name][1]
            return target.path if target is not None else ""
        spec = self._spec(name)
        return self._values.get(spec.name, spec.default)

    def set(self, name: str, value: Any) -> None:
        """Set a value property. Raises `PropertyError`."""
        if name == "type" or name in self._children or name in self._links:
            raise PropertyError(f"{self.type_name}.{name} cannot be set")
        spec = self._spec(name)
        if not spec.writable:
            raise PropertyError(f"{self.type_name}.{spec.name} cannot be set")
        self._values[spec.name] = spec.parse(value, self.type_name)

    def settings(self) -> dict[str, Any]:
        """The value properties that were set, by name."""
        return dict(self._values)

    def _spec(self, name: str) -> Property:
        specs = self.property_specs()
        spec = specs.get(name) or specs.get(name.replace("_", "-"))
        if spec is None:
            unknown = NotFoundError(f"property of {self.type_name}", name, specs)
            raise PropertyError(str(unknown))
        return spec
