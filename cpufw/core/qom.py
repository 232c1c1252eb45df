"""The object tree: typed properties, children, links and canonical paths (QEMU's QOM)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from cpufw.errors import NotFoundError, PropertyError


@dataclass(frozen=True, slots=True)
class Property:
    """One typed property of an object.

    `type` is QEMU's spelling: `bool`, `int`, `uint32`, `string`. `low` and `high` bound integers;
    `check` returns what is wrong with a value, or None. `compute` works the value out of the
    object; without it the value is what was set, or `default`.
    """

    name: str
    type: str
    description: str = ""
    default: Any = None
    low: int | None = None
    high: int | None = None
    check: Callable[[Any], str | None] | None = None
    writable: bool = True
    compute: Callable[[Any], Any] | None = None

    def parse(self, value: Any, owner: str) -> Any:
        """`value`, converted from text where it is text. Raises `PropertyError`."""
        converted = self._convert(value)
        if converted is None:
            expected = {"bool": "on or off", "string": "text"}.get(self.type, "a whole number")
            raise PropertyError(
                f"{owner}.{self.name}={value} is not valid, expected {expected}",
                "wrong-type",
                property=self.name,
                type=self.type,
            )
        if isinstance(converted, int) and self.type != "bool":
            low, high = self.bounds()
            if (low is not None and converted < low) or (high is not None and converted > high):
                expected = f"{low} to {high}" if high is not None else f"at least {low}"
                raise PropertyError(
                    f"{owner}.{self.name}={value} is out of range, expected {expected}",
                    "out-of-type",
                    property=self.name,
                    type=self.type,
                )
        wrong = self.check(converted) if self.check else None
        if wrong:
            raise PropertyError(f"{owner}.{self.name}={value} is not valid: {wrong}")
        return converted

    def bounds(self) -> tuple[int | None, int | None]:
        """The lowest and highest value allowed, None for no limit; sized types have their own."""
        low, high = self.low, self.high
        least = most = None
        if self.type.startswith("uint"):
            least, most = 0, (1 << int(self.type.removeprefix("uint"))) - 1
        elif self.type == "int32":
            least, most = -(1 << 31), (1 << 31) - 1
        return least if low is None else low, most if high is None else high

    def _convert(self, value: Any) -> Any:
        if self.type == "bool":
            known = SWITCHES.get(value) if isinstance(value, str) else None
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


SWITCHES = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
"""What people and QEMU write for on and off."""


@dataclass
class Link:
    """A link property: its value is another object of the tree, or none.

    `target` is that object, unless there is `find`: then it is what that finds at the time.
    `on_set` is called with what a user sets it to; a link without it only the owner changes.
    """

    type: str
    target: Object | None = None
    find: Callable[[], Object | None] | None = None
    on_set: Callable[[Object | None], None] | None = None

    def follow(self) -> Object | None:
        """The object that it leads to."""
        return self.find() if self.find is not None else self.target


class Object:
    """A node of the tree: it has a type name, properties, a parent and named children."""

    type_name: str = "object"

    def __init__(self) -> None:
        self.parent: Object | None = None
        self.name = ""
        self._children: dict[str, Object] = {}
        self._links: dict[str, Link] = {}
        self._specs: dict[str, Property] = {}
        self._values: dict[str, Any] = {}

    def property_specs(self) -> Mapping[str, Property]:
        """The value properties this object has, by name."""
        return self._specs

    def add_property(self, spec: Property) -> None:
        """Give this object a value property of its own."""
        self._specs[spec.name] = spec

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

    def add_link(
        self,
        name: str,
        type_name: str,
        target: Object | None = None,
        find: Callable[[], Object | None] | None = None,
        on_set: Callable[[Object | None], None] | None = None,
    ) -> None:
        """Add a link property; see `Link`."""
        if name in self._children or name in self._links:
            raise PropertyError(f"{self.path} already has a property '{name}'")
        self._links[name] = Link(type_name, target, find, on_set)

    def set_link(self, name: str, target: Object | None) -> None:
        """Point the link `name` at `target`, or at nothing."""
        self._links[name].target = target

    def links(self) -> Mapping[str, Link]:
        """The link properties, by name."""
        return self._links

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
            step = node.step(part)
            if step is None:
                raise NotFoundError("object", path, hint=f"{node.path} has no '{part}'")
            node = step
        return node

    def partial(self, path: str) -> list[Object]:
        """What a path may mean that begins anywhere at or under this object."""
        parts = [part for part in path.split("/") if part]
        return list(self._partial(parts))

    def _partial(self, parts: Sequence[str]) -> Iterator[Object]:
        node = self.follow(parts)
        if node is not None:
            yield node
        for child in tuple(self._children.values()):
            yield from child._partial(parts)

    def follow(self, parts: Iterable[str]) -> Object | None:
        """What a path of these parts leads to from here; None if it leads nowhere."""
        node: Object = self
        for part in parts:
            step = node.step(part)
            if step is None:
                return None
            node = step
        return node

    def step(self, name: str) -> Object | None:
        """The child of this name, or what the link of this name leads to."""
        link = self._links.get(name)
        return self._children.get(name) or (link.follow() if link is not None else None)

    def list_properties(self) -> dict[str, str]:
        """Name and type of every property, as QMP's `qom-list` shows them."""
        found = {"type": "string"}
        found.update({name: spec.type for name, spec in self.property_specs().items()})
        found.update({name: f"child<{node.type_name}>" for name, node in self._children.items()})
        found.update({name: f"link<{link.type}>" for name, link in self._links.items()})
        return found

    def has(self, name: str) -> bool:
        """Whether there is a property of exactly this name."""
        others = (self._children, self._links, self.property_specs())
        return name == "type" or any(name in each for each in others)

    def get(self, name: str) -> Any:
        """The value of a property; children and links give canonical paths, `""` when empty.

        Raises `PropertyError`.
        """
        if name == "type":
            return self.type_name
        if name in self._children:
            return self._children[name].path
        if name in self._links:
            target = self._links[name].follow()
            return target.path if target is not None else ""
        spec = self._spec(name)
        if spec.compute is not None:
            return spec.compute(self)
        return self._values.get(spec.name, spec.default)

    def set(self, name: str, value: Any) -> None:
        """Set a property; a link to an object, to the object at a path, or with `""` to none.

        Raises `PropertyError`, and what the setter of a link raises.
        """
        link = self._links.get(name)
        if link is not None and link.on_set is not None:
            link.on_set(self.resolve(value) if value and isinstance(value, str) else value or None)
            return
        if name == "type" or name in self._children or link is not None:
            raise self._read_only(name)
        spec = self._spec(name)
        if not spec.writable:
            raise self._read_only(spec.name)
        self._values[spec.name] = spec.parse(value, self.type_name)

    def _read_only(self, name: str) -> PropertyError:
        sentence = f"{self.type_name}.{name} cannot be set"
        return PropertyError(sentence, "read-only", owner=self.type_name, property=name)

    def settings(self) -> dict[str, Any]:
        """The value properties that were set, by name."""
        return dict(self._values)

    def _spec(self, name: str) -> Property:
        specs = self.property_specs()
        spec = specs.get(name) or specs.get(name.replace("_", "-"))
        if spec is None:
            unknown = NotFoundError(f"property of {self.type_name}", name, specs)
            raise PropertyError(str(unknown), "no-property", owner=self.type_name, property=name)
        return spec


DEVICE_PROPERTIES = tuple(
    Property(name, "bool", description, writable=False, compute=attrgetter(name))
    for name, description in (
        ("realized", "it works"),
        ("hotplugged", "it came after the machine was made"),
        ("hotpluggable", "it can come and go"),
    )
)
"""What every device says of itself, each from an attribute of that name."""
