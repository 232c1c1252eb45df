"""What `query-qmp-schema` answers, from the annotations that `cpufw.monitor.schema` describes."""

from __future__ import annotations

from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from cpufw.monitor.schema import Features, Members, ValueFeatures, Variants, bare, members

_BUILTIN = {
    Any: ("any", "value"),
    bool: ("bool", "boolean"),
    int: ("int", "int"),
    str: ("str", "string"),
    float: ("number", "number"),
    NoneType: ("null", "null"),
}


class Introspection:
    """The list of commands and events and, behind them, of their types.

    Types have numbers for names, as QEMU masks its own: clients must not rely on them.
    """

    def __init__(self) -> None:
        self._entities: list[dict[str, Any]] = []
        self._types: list[dict[str, Any]] = []
        self._names: dict[Any, str] = {}
        self._object(("members", ()), (), ())  # type 0, as in QEMU: nothing

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What was added, in QMP's form."""
        return self._entities + self._types

    def add_command(self, name: str, arguments: Any, returns: Any, **facts: Any) -> None:
        """One command; `arguments`: a type, or `Members`. `facts`: further members of the entry."""
        taken = self._members(arguments) if isinstance(arguments, dict) else self._name(arguments)
        given = self._members({}) if returns is NoneType else self._name(returns)
        entry = {"name": name, "meta-type": "command", "arg-type": taken, "ret-type": given}
        self._entities.append({**entry, **facts})

    def add_event(self, name: str, data: Any | None) -> None:
        """One event; `data` is a `TypedDict`, or None."""
        taken = self._members({}) if data is None else self._name(data)
        self._entities.append({"name": name, "meta-type": "event", "arg-type": taken})

    def _name(self, annotated: Any) -> str:
        kind, notes = bare(annotated)
        origin = get_origin(kind)
        if kind in _BUILTIN:
            name, json_type = _BUILTIN[kind]
            return self._once(kind, {"meta-type": "builtin", "json-type": json_type}, name)
        if origin is list:
            element = self._name(get_args(kind)[0])
            key = f"[{element}]"
            return self._once(key, {"meta-type": "array", "element-type": element}, key)
        if origin is Literal:
            return self._enum(get_args(kind), notes)
        if origin in (Union, UnionType):
            choices = [{"type": self._name(each)} for each in get_args(kind)]
            return self._once(repr(choices), {"meta-type": "alternate", "members": choices})
        return self._object((kind, notes), members(kind).items(), notes)

    def _enum(self, values: tuple[str, ...], notes: tuple[Any, ...]) -> str:
        features: dict[str, list[str]] = {}
        for note in notes:
            if isinstance(note, ValueFeatures):
                features = {value: list(names) for value, names in note.by_value.items()}
        shown = [{"name": value, **_features(features.get(value, ()))} for value in values]
        entry = {"meta-type": "enum", "members": shown, "values": list(values)}
        return self._once(repr(shown), entry)

    def _members(self, known: Members) -> str:
        return self._object(("members", repr(known) if known else ()), known.items(), ())

    def _object(
        self, key: Any, known: Iterable[tuple[str, tuple[Any, bool]]], notes: tuple[Any, ...]
    ) -> str:
        if key in self._names:
            return self._names[key]
        name = self._new_name(key)
        entry: dict[str, Any] = {"name": name, "meta-type": "object"}
        self._types.append(entry)  # before its members: a type may be one of its own
        entry["members"] = [self._member(*each) for each in known]
        for note in notes:
            if isinstance(note, Variants):
                types = {member["name"]: member["type"] for member in entry["members"]}
                entry["tag"] = note.tag
                entry["variants"] = [
                    {"case": case, "type": self._name(note.cases[case])}
                    if case in note.cases
                    else {"case": case, "type": self._members({})}
                    for case in self._values(types[note.tag])
                ]
        return name

    def _member(self, name: str, fact: tuple[Any, bool]) -> dict[str, Any]:
        kind, optional = fact
        _, notes = bare(kind)
        features = [each for note in notes if isinstance(note, Features) for each in note.names]
        entry: dict[str, Any] = {"name": name, "type": self._name(kind)}
        return {**entry, **({"default": None} if optional else {}), **_features(features)}

    def _values(self, enum: str) -> list[str]:
        return next(list(entry["values"]) for entry in self._types if entry["name"] == enum)

    def _once(self, key: Any, entry: dict[str, Any], name: str | None = None) -> str:
        if key not in self._names:
            name = self._names[key] = name if name is not None else self._new_name(key)
            self._types.append({"name": name, **entry})
        return self._names[key]

    def _new_name(self, key: Any) -> str:
        numbers = sum(name.isdecimal() for name in self._names.values())
        self._names[key] = str(numbers)
        return self._names[key]


def _features(names: Iterable[str]) -> dict[str, list[str]]:
    return {"features": list(names)} if names else {}
