"""QAPI types from Python annotations: checking of arguments, and `query-qmp-schema`.

`bool`, `int`, `str`, `float` and `Any` are QAPI's built-in types, `list[T]` an array, a `Literal`
an enumeration, a `TypedDict` an object (its `NotRequired` members are optional), and a union an
alternate.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from cpufw.monitor.errors import QmpError

_BUILTIN = {bool: "boolean", int: "integer", str: "string", float: "number"}
_INT64 = 1 << 63


def check(value: Any, kind: Any, name: str) -> Any:
    """`value`, if it is of type `kind`. Raises `QmpError` about the member `name`."""
    origin = get_origin(kind)
    if kind is Any:
        return value
    if kind in _BUILTIN:
        return _scalar(value, kind, name)
    if origin is Literal:
        _scalar(value, str, name)
        if value not in get_args(kind):
            raise QmpError(f"Parameter '{name}' does not accept value '{value}'")
        return value
    if origin is list:
        if not isinstance(value, list):
            raise QmpError(_wrong_type(name, "array"))
        (element,) = get_args(kind)
        return [check(each, element, f"{name}[{at}]") for at, each in enumerate(value)]
    if origin in (Union, UnionType):
        return _alternate(value, kind, name)
    if not isinstance(value, dict):
        raise QmpError(_wrong_type(name, "object"))
    return check_members(value, members(kind), f"{name}.")


def check_members(
    given: dict[str, Any], known: dict[str, tuple[Any, bool]], prefix: str = ""
) -> dict[str, Any]:
    """The members of an object, each checked; `known` gives type and whether it may be missing."""
    for name in given:
        if name not in known:
            raise QmpError(f"Parameter '{prefix}{name}' is unexpected")
    checked = {}
    for name, (kind, optional) in known.items():
        if name in given:
            checked[name] = check(given[name], kind, prefix + name)
        elif not optional:
            raise QmpError(f"Parameter '{prefix}{name}' is missing")
    return checked


def members(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Name, type and optionality of each member of a `TypedDict`."""
    return {
        name: (get_args(hint)[0], True) if get_origin(hint) is NotRequired else (hint, False)
        for name, hint in get_type_hints(kind, include_extras=True).items()
    }


def _scalar(value: Any, kind: type, name: str) -> Any:
    if isinstance(value, bool) is not (kind is bool):
        raise QmpError(_wrong_type(name, _BUILTIN[kind]))
    if kind is float and isinstance(value, int):
        return value
    if not isinstance(value, kind):
        raise QmpError(_wrong_type(name, _BUILTIN[kind]))
    if isinstance(value, int) and not -_INT64 <= value < 2 * _INT64:
        raise QmpError(_wrong_type(name, "integer"))
    return value


def _alternate(value: Any, kind: Any, name: str) -> Any:
    choices = [each for each in get_args(kind) if each is not NoneType]
    for each in choices:
        try:
            return check(value, each, name)
        except QmpError:
            continue
    raise QmpError(_wrong_type(name, " or ".join(_BUILTIN.get(each, "object") for each in choices)))


def _wrong_type(name: str, expected: str) -> str:
    return f"Invalid parameter type for '{name}', expected: {expected}"


class Introspection:
    """The list that `query-qmp-schema` answers, built up type by type.

    Types have numbers for names, as QEMU masks its own: clients must not rely on them.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self._names: dict[Any, str] = {}

    def add_command(
        self, name: str, arguments: dict[str, tuple[Any, bool]], returns: Any, **facts: Any
    ) -> None:
        """One command; `facts` are further members of its entry."""
        entry = {
            "name": name,
            "meta-type": "command",
            "arg-type": self._object(tuple(arguments.items())),
            "ret-type": self._name(returns) if returns is not NoneType else self._object(()),
        }
        self.entries.append({**entry, **facts})

    def add_event(self, name: str, data: Any) -> None:
        """One event; `data` is a `TypedDict`."""
        arg = self._object(tuple(members(data).items()))
        self.entries.append({"name": name, "meta-type": "event", "arg-type": arg})

    def _name(self, kind: Any) -> str:
        if kind is Any:
            return self._once("any", {"meta-type": "builtin", "json-type": "value"}, "any")
        if kind in _BUILTIN:
            name = {bool: "bool", int: "int", str: "str", float: "number"}[kind]
            json_type = "int" if kind is int else _BUILTIN[kind]
            return self._once(name, {"meta-type": "builtin", "json-type": json_type}, name)
        if get_origin(kind) is list:
            element = self._name(get_args(kind)[0])
            entry = {"meta-type": "array", "element-type": element}
            return self._once(f"[{element}]", entry, f"[{element}]")
        if get_origin(kind) is Literal:
            values = list(get_args(kind))
            shown = [{"name": value} for value in values]
            return self._once(kind, {"meta-type": "enum", "members": shown, "values": values})
        if get_origin(kind) in (Union, UnionType):
            choices = [{"type": self._name(each)} for each in get_args(kind)]
            return self._once(kind, {"meta-type": "alternate", "members": choices})
        assert is_typeddict(kind), kind
        return self._object(tuple(members(kind).items()), kind)

    def _object(self, known: tuple[tuple[str, tuple[Any, bool]], ...], key: Any = None) -> str:
        key = key if key is not None else repr(known)
        if key in self._names:
            return self._names[key]
        name = self._names[key] = str(len(self._names))
        shown = [
            {"name": member, **({"default": None} if optional else {}), "type": self._name(kind)}
            for member, (kind, optional) in known
        ]
        self.entries.append({"name": name, "meta-type": "object", "members": shown})
        return name

    def _once(self, key: Any, entry: dict[str, Any], name: str | None = None) -> str:
        if key not in self._names:
            self._names[key] = name or str(len(self._names))
            self.entries.append({"name": self._names[key], **entry})
        return self._names[key]
