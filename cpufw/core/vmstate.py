"""Declarative, versioned state: what of an object is saved, and how old saves are still read.

A class names its state once, as data:

    class Timer:
        vmstate: ClassVar[VMState] = VMState(
            "timer",
            2,
            u32("count"),
            boolean("running", attr="_running"),
            array(u8, "registers", 4),
            u16("divider", since=2, default=1),
            Subsection("timer/alarm", u64("alarm", default=0)),
            post_load="rearm",
        )

`Timer.vmstate.save(timer)` is plain data (numbers, truth values, text, bytes, lists, dicts), which
`Timer.vmstate.load(timer, state)` checks in full before it changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cpufw.core.state_fields import (
    Field,
    array,
    blob,
    boolean,
    i64,
    member,
    nested,
    nested_list,
    text,
    u8,
    u16,
    u32,
    u64,
)
from cpufw.errors import StateError

__all__ = [
    "Field",
    "State",
    "Subsection",
    "VMState",
    "array",
    "blob",
    "boolean",
    "i64",
    "member",
    "nested",
    "nested_list",
    "text",
    "u8",
    "u16",
    "u32",
    "u64",
]

State = dict[str, Any]
"""`{"version": 2, "fields": {name: value}, "subsections": {name: state}}`; the last if any."""

Values = list[tuple[Field, Any]]


class Subsection:
    """Fields that are saved only where they matter, so that other states load without them.

    They matter where `needed(object)` says so; without it, where any differs from its default.
    A state without the subsection gives every field its default.
    """

    def __init__(
        self,
        name: str,
        *fields: Field,
        version: int = 1,
        needed: Callable[[Any], bool] | None = None,
    ) -> None:
        for field in fields:
            if not field.is_optional:
                raise ValueError(f"field {field.name} of subsection {name} needs a default")
            if field.is_object and needed is None:
                raise ValueError(f"subsection {name} with an object inside must tell 'needed'")
        self.state = VMState(name, version, *fields)
        self.fields = fields
        self._needed = needed

    @property
    def name(self) -> str:
        """Its name in the state."""
        return self.state.name

    def needed(self, thing: Any) -> bool:
        """Whether `thing` cannot do without it."""
        if self._needed is not None:
            return self._needed(thing)
        return any(
            field.kind.save(field.value_in(thing), field.name) != field.default
            for field in self.fields
        )


class VMState:
    """The state called `name` in its `version`: `fields`, and subsections among them.

    `pre_save` and `post_load` name methods of the object: one brings the attributes up to date
    before they are read, the other makes the rest of the object follow them.
    """

    def __init__(
        self,
        name: str,
        version: int,
        *parts: Field | Subsection,
        pre_save: str = "",
        post_load: str = "",
    ) -> None:
        self.name, self.version = name, version
        self.fields = tuple(part for part in parts if isinstance(part, Field))
        self.subsections = {part.name: part for part in parts if isinstance(part, Subsection)}
        self._pre_save, self._post_load = pre_save, post_load
        names = [field.name for field in self.fields]
        if len({*names, *self.subsections}) != len(parts):
            raise ValueError(f"state {name} has two parts of one name")
        if late := [field.name for field in self.fields if field.since > version]:
            raise ValueError(f"state {name} is of version {version}, older than its {late[0]}")

    def save(self, thing: Any) -> State:
        """The state of `thing` as plain data. Raises `StateError` for a value out of range."""
        if self._pre_save:
            getattr(thing, self._pre_save)()
        fields = {
            field.name: field.kind.save(field.value_in(thing), self._where(field))
            for field in self.fields
        }
        state: State = {"version": self.version, "fields": fields}
        needed = [part for part in self.subsections.values() if part.needed(thing)]
        if needed:
            state["subsections"] = {part.name: part.state.save(thing) for part in needed}
        return state

    def load(self, thing: Any, state: Mapping[str, Any]) -> None:
        """Give `thing` a saved state.

        Raises `StateError`, with `thing` as it was, for a state that is newer than this version
        or does not have its shape.
        """
        values = self.check(state)
        self.check_places(thing, values)
        self.apply(thing, values)

    def check(self, state: Any) -> Values:
        """Every field with the value to set, absent ones with their default."""
        version, given, subsections = self._parts(state)
        if version > self.version:
            raise StateError(
                f"state of {self.name} has version {version}, this cpufw reads up to "
                f"{self.version}: load it with a newer cpufw"
            )
        known = {field.name: field for field in self.fields if field.since <= version}
        self._refuse_unknown("field", given, known)
        self._refuse_unknown("subsection", subsections, self.subsections)
        values: Values = []
        for field in self.fields:
            if field.name in known:
                if field.name not in given:
                    raise StateError(f"state of {self.name} lacks its field {field.name}")
                value = field.kind.check(given[field.name], self._where(field))
                values.append((field, value))
            else:
                values += field.defaults()
        for name, part in self.subsections.items():
            if name in subsections:
                values += part.state.check(subsections[name])
            else:
                values += [pair for field in part.fields for pair in field.defaults()]
        return values

    def _parts(self, state: Any) -> tuple[int, dict[str, Any], dict[str, Any]]:
        match state:
            case {"version": int(version), "fields": dict(fields), **rest} if version > 0:
                subsections = rest.pop("subsections", {})
                if not rest and isinstance(subsections, dict):
                    return version, fields, subsections
        raise StateError(f"state of {self.name} is not a version, fields and subsections")

    def _refuse_unknown(
        self, kind: str, given: Mapping[str, Any], known: Mapping[str, Any]
    ) -> None:
        for name in given:
            if name not in known:
                raise StateError(
                    f"state of {self.name} has the {kind} {name!r}, which this cpufw does not "
                    "know: load it with a newer cpufw"
                )

    def check_places(self, thing: Any, values: Values) -> None:
        """Raise `StateError` if `values` do not fit the objects inside `thing`."""
        for field, value in values:
            field.kind.check_place(*field.owner_of(thing), value, self._where(field))

    def apply(self, thing: Any, values: Values) -> None:
        """Set checked `values`."""
        for field, value in values:
            field.kind.put(*field.owner_of(thing), value)
        if self._post_load:
            getattr(thing, self._post_load)()

    def _where(self, field: Field) -> str:
        return f"state of {self.name}: {field.name}"
