"""Two answers of `query-qmp-schema`, compared by structure: the names of types are masked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Schema:
    """An answer of `query-qmp-schema`."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self.entries = {entry["name"]: entry for entry in entries}
        assert len(self.entries) == len(entries), "a name appears twice"

    def entities(self) -> dict[str, dict[str, Any]]:
        """Commands and events, by name."""
        return {
            name: entry
            for name, entry in self.entries.items()
            if entry["meta-type"] in ("command", "event")
        }


def differences(ours: Schema, theirs: Schema, name: str) -> set[str]:
    """How the command or event `name` differs, a phrase each: `argument x: only QEMU's`."""
    one, other = ours.entries[name], theirs.entries[name]
    compare = _Comparison(ours, theirs)
    found = set(compare.features("", one, other))
    if one.get("allow-oob", False) is not other.get("allow-oob", False):
        found.add("allow-oob")
    found |= set(compare.types("argument", one["arg-type"], other["arg-type"]))
    if "ret-type" in other:
        found |= set(compare.types("answer", one["ret-type"], other["ret-type"]))
    return found


class _Comparison:
    def __init__(self, ours: Schema, theirs: Schema) -> None:
        self._ours, self._theirs = ours.entries, theirs.entries
        self._seen: set[tuple[str, str]] = set()

    def types(self, path: str, ours: str, theirs: str) -> Iterator[str]:
        """How two types differ."""
        if (ours, theirs) in self._seen:
            return
        self._seen.add((ours, theirs))
        one, other = self._ours[ours], self._theirs[theirs]
        kind = one["meta-type"]
        if kind != other["meta-type"]:
            yield f"{path}: {kind}, QEMU's is {other['meta-type']}"
        elif kind == "builtin":
            if (ours, one["json-type"]) != (theirs, other["json-type"]):
                yield f"{path}: {ours}, QEMU's is {theirs}"
        elif kind == "array":
            yield from self.types(f"{path}[]", one["element-type"], other["element-type"])
        elif kind == "alternate":
            yield from self._alternates(path, one, other)
        elif kind == "enum":
            yield from self._enums(path, one, other)
        else:
            yield from self._members(path, one, other)
            if one.get("tag") != other.get("tag"):
                yield f"{path}: tag {one.get('tag')}, QEMU's is {other.get('tag')}"
            else:
                yield from self._variants(path, one, other)

    def features(self, path: str, one: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
        """How the features of two entries differ."""
        mine, other_s = one.get("features", []), other.get("features", [])
        if mine != other_s:
            yield f"{path} features {mine}, QEMU's are {other_s}".strip()

    def _enums(self, path: str, one: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
        assert one["values"] == [member["name"] for member in one["members"]]
        mine = {member["name"]: member for member in one["members"]}
        others = {member["name"]: member for member in other["members"]}
        yield from _only(f"{path} value", list(mine), list(others))
        common = [name for name in mine if name in others]
        if common != [name for name in others if name in mine]:
            yield f"{path}: order of the values"
        for name in common:
            yield from self.features(f"{path} value {name}:", mine[name], others[name])

    def _alternates(self, path: str, one: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
        mine, others = one["members"], other["members"]
        if len(mine) != len(others):
            yield f"{path}: {len(mine)} choices, QEMU has {len(others)}"
        for each, its in zip(mine, others, strict=False):
            yield from self.types(path, each["type"], its["type"])

    def _members(self, path: str, one: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
        mine = {member["name"]: member for member in one["members"]}
        others = {member["name"]: member for member in other["members"]}
        yield from _only(f"{path} member", list(mine), list(others))
        for name in sorted(set(mine) & set(others)):
            if ("default" in mine[name]) is not ("default" in others[name]):
                yield f"{path}.{name}: optional on one side"
            yield from self.features(f"{path}.{name}:", mine[name], others[name])
            yield from self.types(f"{path}.{name}", mine[name]["type"], others[name]["type"])

    def _variants(self, path: str, one: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
        mine = {each["case"]: each["type"] for each in one.get("variants", ())}
        others = {each["case"]: each["type"] for each in other.get("variants", ())}
        for case in sorted(set(mine) | set(others)):
            if case not in mine or case not in others:
                lone, schema = (
                    (mine[case], self._ours) if case in mine else (others[case], self._theirs)
                )
                if schema[lone].get("members"):  # one without members is as good as none
                    yield f"{path} case {case}: only {'ours' if case in mine else 'QEMU has it'}"
            else:
                yield from self.types(f"{path}({case})", mine[case], others[case])


def _only(path: str, ours: list[str], theirs: list[str]) -> Iterator[str]:
    for name in ours:
        if name not in theirs:
            yield f"{path} {name}: only ours"
    for name in theirs:
        if name not in ours:
            yield f"{path} {name}: only QEMU has it"
