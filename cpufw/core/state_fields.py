"""The fields of a state: what values each takes, and how they get out of and into an object."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from cpufw.errors import StateError

if TYPE_CHECKING:
    from cpufw.core.vmstate import VMState

_REQUIRED: Any = object()
_AS_IT_IS: Any = object()


class Kind:
    """What values a field takes: `check` returns the value to set, or raises `StateError`."""

    def check(self, value: Any, where: str) -> Any:
        """The value for the object from the saved `value` of the field called `where`."""
        raise NotImplementedError

    def save(self, value: Any, where: str) -> Any:
        """The plain data for the object's `value`."""
        return self.check(value, where)

    def check_place(self, owner: Any, attribute: str, value: Any, where: str) -> None:
        """Raise `StateError` if the checked `value` does not fit what the object has there."""

    def put(self, owner: Any, attribute: str, value: Any) -> None:
        """Give the checked `value` to the object."""
        setattr(owner, attribute, value)


@dataclass(frozen=True)
class Field:
    """One field of a state; made by `u8("name")` and its like.

    `attr` is the attribute, or a path of them (`_pm1.status`), if it is not called as the field
    is. A field that came with a later version than the state's first says so with `since`, and
    what states without it mean with `default`.
    """

    name: str
    kind: Kind
    attr: str
    since: int
    default: Any

    @property
    def is_optional(self) -> bool:
        """Whether states without this field have a meaning."""
        return self.default is not _REQUIRED

    @property
    def is_object(self) -> bool:
        """Whether the field is an object inside, which has no default."""
        return self.default is _AS_IT_IS

    def defaults(self) -> list[tuple[Field, Any]]:
        """This field and its default, if it has one to set."""
        if self.is_object:
            return []
        value = self.default
        return [(self, list(value) if isinstance(self.kind, _Array) else value)]

    def owner_of(self, thing: Any) -> tuple[Any, str]:
        """The object that has the attribute, and the attribute."""
        path, _, attribute = self.attr.rpartition(".")
        return reduce(getattr, path.split("."), thing) if path else thing, attribute

    def value_in(self, thing: Any) -> Any:
        """The attribute's value."""
        return getattr(*self.owner_of(thing))


@dataclass(frozen=True)
class Scalar(Kind):
    """A kind of single values: call it with a name for a field."""

    name: str
    kind: type[int] | type[str]
    low: int = 0
    high: int = 0

    def __call__(
        self, name: str, *, attr: str = "", since: int = 1, default: Any = _REQUIRED
    ) -> Field:
        """A field of this kind; see `Field`."""
        return _field(name, self, attr, since, default)

    def check(self, value: Any, where: str) -> Any:
        """A value of the type, and of the range if it is a number."""
        if type(value) is not self.kind:
            raise StateError(f"{where} is {_shown(value)}, expected {self.name}")
        if isinstance(value, int) and self.kind is int and not self.low <= value <= self.high:
            raise StateError(f"{where} is {value:#x}, expected {self.name}: {_span(self)}")
        return value

    def save(self, value: Any, where: str) -> Any:
        """A plain number also of an enumeration's member."""
        plain = int(value) if self.kind is int and isinstance(value, int) else value
        return self.check(plain, where)


u8 = Scalar("u8", int, 0, 0xFF)
u16 = Scalar("u16", int, 0, 0xFFFF)
u32 = Scalar("u32", int, 0, 0xFFFF_FFFF)
u64 = Scalar("u64", int, 0, 0xFFFF_FFFF_FFFF_FFFF)
i64 = Scalar("i64", int, -(1 << 63), (1 << 63) - 1)
boolean = Scalar("true or false", bool)
text = Scalar("text", str)


@dataclass(frozen=True)
class _Member(Kind):
    enumeration: type[enum.Enum]

    def check(self, value: Any, where: str) -> Any:
        try:
            return self.enumeration(value)
        except ValueError:
            known = ", ".join(str(member.value) for member in self.enumeration)
            raise StateError(f"{where} is {_shown(value)}, expected one of {known}") from None

    def save(self, value: Any, where: str) -> Any:  # noqa: ARG002 - an enumeration is in range
        return value.value


@dataclass(frozen=True)
class _Sized(Kind):
    """A kind with a length: exactly `length`, or at most `most`."""

    length: int | None
    most: int | None

    def check_length(self, count: int, unit: str, where: str) -> None:
        if self.length is not None and count != self.length:
            raise StateError(f"{where} has {count} {unit}, expected {self.length}")
        if self.most is not None and count > self.most:
            raise StateError(f"{where} has {count} {unit}, expected {self.most} at most")


@dataclass(frozen=True)
class _Blob(_Sized):
    def check(self, value: Any, where: str) -> Any:
        if not isinstance(value, bytes):
            raise StateError(f"{where} is {_shown(value)}, expected bytes")
        self.check_length(len(value), "bytes", where)
        return value

    def save(self, value: Any, where: str) -> Any:
        return self.check(bytes(value), where)

    def put(self, owner: Any, attribute: str, value: Any) -> None:
        now = getattr(owner, attribute, None)
        if isinstance(now, bytearray | memoryview):
            now[:] = value
        else:
            setattr(owner, attribute, value)


@dataclass(frozen=True)
class _Array(_Sized):
    element: Kind

    def check(self, value: Any, where: str) -> Any:
        if not isinstance(value, list):
            raise StateError(f"{where} is {_shown(value)}, expected a list")
        self.check_length(len(value), "items", where)
        return [self.element.check(item, f"{where}[{i}]") for i, item in enumerate(value)]

    def save(self, value: Any, where: str) -> Any:
        plain = [self.element.save(item, f"{where}[{i}]") for i, item in enumerate(value)]
        self.check_length(len(plain), "items", where)
        return plain

    def put(self, owner: Any, attribute: str, value: Any) -> None:
        now: Any = getattr(owner, attribute, None)
        if hasattr(now, "clear") and hasattr(now, "extend"):  # a list or a deque keeps its identity
            now.clear()
            now.extend(value)
        else:
            setattr(owner, attribute, tuple(value) if isinstance(now, tuple) else value)


@dataclass(frozen=True)
class _Nested(Kind):
    state: VMState

    def check(self, value: Any, where: str) -> Any:  # noqa: ARG002 - the state names itself
        return self.state.check(value)

    def save(self, value: Any, where: str) -> Any:  # noqa: ARG002
        return self.state.save(value)

    def check_place(self, owner: Any, attribute: str, value: Any, where: str) -> None:  # noqa: ARG002
        self.state.check_places(getattr(owner, attribute), value)

    def put(self, owner: Any, attribute: str, value: Any) -> None:
        self.state.apply(getattr(owner, attribute), value)


@dataclass(frozen=True)
class _NestedList(_Sized):
    state: VMState

    def check(self, value: Any, where: str) -> Any:
        if not isinstance(value, list):
            raise StateError(f"{where} is {_shown(value)}, expected a list")
        self.check_length(len(value), "items", where)
        return [self.state.check(item) for item in value]

    def save(self, value: Any, where: str) -> Any:
        self.check_length(len(value), "items", where)
        return [self.state.save(item) for item in value]

    def check_place(self, owner: Any, attribute: str, value: Any, where: str) -> None:
        things = getattr(owner, attribute)
        if len(things) != len(value):
            raise StateError(f"{where} has {len(value)} items, expected {len(things)}")
        for thing, state in zip(things, value, strict=True):
            self.state.check_places(thing, state)

    def put(self, owner: Any, attribute: str, value: Any) -> None:
        for thing, state in zip(getattr(owner, attribute), value, strict=True):
            self.state.apply(thing, state)


def member(
    enumeration: type[enum.Enum],
    name: str,
    *,
    attr: str = "",
    since: int = 1,
    default: Any = _REQUIRED,
) -> Field:
    """A member of an enumeration, saved as its value: `member(SlotState, "state")`."""
    return _field(name, _Member(enumeration), attr, since, default)


def blob(
    name: str,
    size: int | None = None,
    *,
    most: int | None = None,
    attr: str = "",
    since: int = 1,
    default: Any = _REQUIRED,
) -> Field:
    """Bytes: exactly `size` of them, or `most` at most. A bytearray is filled in place."""
    return _field(name, _Blob(size, most), attr, since, default)


def array(
    element: Kind,
    name: str,
    length: int | None = None,
    *,
    most: int | None = None,
    attr: str = "",
    since: int = 1,
    default: Any = _REQUIRED,
) -> Field:
    """A list of `element` values: `array(u16, "rings", 8)`. Lists and deques stay the same."""
    return _field(name, _Array(length, most, element), attr, since, default)


def nested(name: str, state: VMState, *, attr: str = "", since: int = 1) -> Field:
    """An object inside, which states from before `since` leave as it is."""
    return _field(name, _Nested(state), attr, since, _AS_IT_IS)


def nested_list(
    name: str, state: VMState, length: int | None = None, *, attr: str = "", since: int = 1
) -> Field:
    """A list of such objects; a load needs as many as the state has."""
    return _field(name, _NestedList(length, None, state), attr, since, _AS_IT_IS)


def _field(name: str, kind: Kind, attr: str, since: int, default: Any) -> Field:
    if since > 1 and default is _REQUIRED:
        raise ValueError(f"field {name} came with version {since}: older states need a default")
    return Field(name, kind, attr or name, since, default)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, int | str) else f"of type {type(value).__name__}"


def _span(kind: Scalar) -> str:
    return f"{kind.low} to {kind.high:#x}"
