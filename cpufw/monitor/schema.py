r"""QAPI types from Python annotations, and the checking of arguments.

| QAPI | annotation |
|---|---|
| `bool`, `str`, `number`, `any` | `bool`, `str`, `float`, `Any` |
| `int` (64 bits and a sign) | `int` |
| `uint8` … `uint64`, `size` | `Uint8`, `Uint16`, `Uint32`, `Uint64` |
| array | `list[T]` |
| enum, its values in QAPI's order | `Literal["a", "b"]` |
| features of values of it | `Annotated[Literal["a", "b"], ValueFeatures({"b": ("deprecated",)})]` |
| struct | `TypedDict`; `NotRequired[T]` is an optional member |
| features of a member | `NotRequired[Annotated[T, Features("unstable")]]` |
| union | `Annotated[Base, Variants("tag", {"value": Struct})]`; the `TypedDict` `Base` has `tag` |
| alternate | `Annotated[str \| None, Alternate("StrOrNull")]` |
| optional argument of a command | `argument: T \| None = None` |

`Base`'s member `tag` is an enum; a value of it that `Variants` does not name has no further
members. A command whose arguments as a whole are one struct or union is `boxed`, see
`cpufw.monitor.command.command`; the events are `cpufw.monitor.event_types.EVENTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from cpufw.monitor.errors import QmpError


class Features:
    """Features of a member: `deprecated`, `unstable`."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True, eq=False)
class ValueFeatures:
    """Features of values of an enumeration, by value."""

    by_value: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Variants:
    """A union's tag and the further members that each value of it brings."""

    tag: str
    cases: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Alternate:
    """One of several types, told apart by JSON's; `name` is what errors call it."""

    name: str


@dataclass(frozen=True)
class Unsigned:
    """A whole number of so many bits."""

    bits: int


Uint8 = Annotated[int, Unsigned(8)]
Uint16 = Annotated[int, Unsigned(16)]
Uint32 = Annotated[int, Unsigned(32)]
Uint64 = Annotated[int, Unsigned(64)]

Members = Mapping[str, tuple[Any, bool]]
"""Type and optionality of each member of an object."""

JSON_TYPES = {bool: "boolean", int: "integer", str: "string", float: "number", NoneType: "null"}
"""What errors call the JSON types, by Python's."""

_INT64 = 1 << 63
_UINT64 = 1 << 64


def bare(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its annotations, and those."""
    if get_origin(kind) is Annotated:
        inner, *notes = get_args(kind)
        return inner, tuple(notes)
    return kind, ()


def check(value: Any, kind: Any, name: str) -> Any:
    """`value`, if it is of type `kind`. Raises `QmpError` about the member `name`."""
    kind, notes = bare(kind)
    origin = get_origin(kind)
    if kind is Any:
        return value
    if kind in JSON_TYPES:
        return _scalar(value, kind, name, notes)
    if origin is Literal:
        _scalar(value, str, name, ())
        if value not in get_args(kind):
            leaf = name.rpartition(".")[2]
            raise QmpError(f"Parameter '{leaf}' does not accept value '{value}'")
        return value
    if origin is list:
        if not isinstance(value, list):
            raise QmpError(_wrong_type(name, "array"))
        (element,) = get_args(kind)
        return [check(each, element, f"{name}[{at}]") for at, each in enumerate(value)]
    if origin in (Union, UnionType):
        return _alternate(value, kind, name, notes)
    if not isinstance(value, dict):
        raise QmpError(_wrong_type(name, "object"))
    return check_object(value, kind, notes, f"{name}.")


def check_object(
    value: dict[str, Any], kind: Any, notes: tuple[Any, ...] = (), prefix: str = ""
) -> dict[str, Any]:
    """The members of a struct or, with `Variants` among `notes`, of a union, each checked."""
    known = members(kind)
    for note in notes:
        if isinstance(note, Variants) and note.tag in value:
            tag_kind, _ = known[note.tag]
            tag = check(value[note.tag], tag_kind, prefix + note.tag)
            if tag in note.cases:
                known = {**known, **members(note.cases[tag])}
    return check_members(value, known, prefix)


def check_members(given: dict[str, Any], known: Members, prefix: str = "") -> dict[str, Any]:
    """The members of an object, each checked against what is `known` of them."""
    checked = {}
    for name, (kind, optional) in known.items():
        if name in given:
            checked[name] = check(given[name], kind, prefix + name)
        elif not optional:
            raise QmpError(f"Parameter '{prefix}{name}' is missing")
    for name in given:
        if name not in known:
            raise QmpError(f"Parameter '{prefix}{name}' is unexpected")
    return checked


@cache
def members(kind: Any) -> Members:
    """Type and optionality of each member of a `TypedDict`."""
    kind, _ = bare(kind)
    return {
        name: (get_args(hint)[0], True) if get_origin(hint) is NotRequired else (hint, False)
        for name, hint in get_type_hints(kind, include_extras=True).items()
    }


def _scalar(value: Any, kind: type, name: str, notes: tuple[Any, ...]) -> Any:
    for note in notes:
        if isinstance(note, Unsigned):
            return _unsigned(value, note.bits, name)
    if isinstance(value, bool) is not (kind is bool):
        raise QmpError(_wrong_type(name, JSON_TYPES[kind]))
    if kind is float and isinstance(value, int):
        return value
    fits = not isinstance(value, int) or -_INT64 <= value < _INT64
    if not isinstance(value, kind) or not fits:
        raise QmpError(_wrong_type(name, JSON_TYPES[kind]))
    return value


def _unsigned(value: Any, bits: int, name: str) -> int:
    # QEMU reads any size as 64 bits first, and a negative number there as its two's complement.
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _UINT64:
        raise QmpError(f"Parameter '{name}' expects uint64")
    if value % _UINT64 >= 1 << bits:
        raise QmpError(f"Parameter '{name}' expects uint{bits}_t")
    return value % _UINT64


def _alternate(value: Any, kind: Any, name: str, notes: tuple[Any, ...]) -> Any:
    for each in get_args(kind):
        try:
            return check(value, each, name)
        except QmpError:
            continue
    names = [note.name for note in notes if isinstance(note, Alternate)]
    choices = (JSON_TYPES.get(bare(each)[0], "object") for each in get_args(kind))
    raise QmpError(_wrong_type(name, names[0] if names else " or ".join(choices)))


def _wrong_type(name: str, expected: str) -> str:
    return f"Invalid parameter type for '{name}', expected: {expected}"
