"""`query-qmp-schema` against QEMU 10.0.2's, command by command, and arguments against types."""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from ruamel.yaml import YAML
from schema_comparison import Schema, differences

import cpufw.monitor.commands
from cpufw.monitor.command import COMMANDS, Command
from cpufw.monitor.commands.control import query_qmp_schema
from cpufw.monitor.errors import QmpError
from cpufw.monitor.event_types import EVENTS
from cpufw.monitor.introspection import Introspection
from cpufw.monitor.schema import (
    Alternate,
    Features,
    Uint8,
    Uint64,
    ValueFeatures,
    Variants,
    check,
    check_object,
)

DATA = Path(__file__).parents[1] / "data" / "qemu10"
KNOWN = YAML(typ="safe").load(Path(__file__).with_name("schema_differences.yaml"))


@cache
def _qemu(target: str) -> Schema:
    packed = (DATA / f"qmp-schema-{target}.json.xz").read_bytes()
    return Schema(json.loads(lzma.decompress(packed)))


@cache
def _ours() -> Schema:
    assert cpufw.monitor.commands.__all__
    return Schema(query_qmp_schema(None))  # type: ignore[arg-type]


def _reference(name: str) -> Schema | None:
    """The schema of QEMU that has a command or event; s390x has more about models."""
    return next((it for it in map(_qemu, ("x86_64", "s390x")) if name in it.entries), None)


@pytest.mark.parametrize("name", [*COMMANDS, *EVENTS])
def test_commands_and_events_have_qemus_shapes(name: str) -> None:
    reference = _reference(name)
    if name.startswith("x-cpufw-"):
        assert reference is None
        return
    assert reference is not None, "QEMU has no such command: it needs the prefix x-cpufw-"
    assert differences(_ours(), reference, name) == set(KNOWN.get(name, ()))


def test_every_known_difference_has_a_reason_and_is_of_a_command_that_there_is() -> None:
    assert set(KNOWN) <= {*COMMANDS, *EVENTS}
    assert all(reason for entry in KNOWN.values() for reason in entry.values())


def test_every_type_of_the_schema_is_there_and_used() -> None:
    entries = _ours().entries
    used = set()
    for entry in entries.values():
        used |= {entry[key] for key in ("arg-type", "ret-type", "element-type") if key in entry}
        if entry["meta-type"] in ("object", "alternate"):
            used |= {each["type"] for each in entry["members"]}
            used |= {each["type"] for each in entry.get("variants", ())}
    assert used == {
        name for name, entry in entries.items() if entry["meta-type"] not in ("command", "event")
    }


class Small(TypedDict):
    size: Uint64
    tiny: NotRequired[Uint8]


class Base(TypedDict):
    kind: Literal["small", "none"]
    name: NotRequired[Annotated[str, Features("unstable")]]


Union = Annotated[Base, Variants("kind", {"small": Small})]
Choice = Annotated[str | None, Alternate("StrOrNull")]
Enum = Annotated[Literal["b", "a"], ValueFeatures({"a": ("deprecated",)})]


@pytest.mark.parametrize(
    ("value", "kind", "error"),
    [
        (True, int, "Invalid parameter type for 'x', expected: integer"),
        (1 << 63, int, "Invalid parameter type for 'x', expected: integer"),
        (1.0, int, "Invalid parameter type for 'x', expected: integer"),
        (1, bool, "Invalid parameter type for 'x', expected: boolean"),
        ("1", float, "Invalid parameter type for 'x', expected: number"),
        (None, str, "Invalid parameter type for 'x', expected: string"),
        ({}, list[int], "Invalid parameter type for 'x', expected: array"),
        ([0, "a"], list[int], "Invalid parameter type for 'x[1]', expected: integer"),
        ("c", Enum, "Parameter 'x' does not accept value 'c'"),
        (5, Enum, "Invalid parameter type for 'x', expected: string"),
        (256, Uint8, "Parameter 'x' expects uint8_t"),
        ("1", Uint8, "Parameter 'x' expects uint64"),
        (1 << 64, Uint64, "Parameter 'x' expects uint64"),
        (5, Choice, "Invalid parameter type for 'x', expected: StrOrNull"),
        ([], Small, "Invalid parameter type for 'x', expected: object"),
        ({}, Small, "Parameter 'x.size' is missing"),
        ({"size": 1, "y": 2}, Small, "Parameter 'x.y' is unexpected"),
        ({"size": 1, "tiny": -1}, Small, "Parameter 'x.tiny' expects uint8_t"),
        ({}, Union, "Parameter 'x.kind' is missing"),
        ({"kind": "big"}, Union, "Parameter 'kind' does not accept value 'big'"),
        ({"kind": "small"}, Union, "Parameter 'x.size' is missing"),
        ({"kind": "none", "size": 1}, Union, "Parameter 'x.size' is unexpected"),
        ([{"kind": "small", "size": "1"}], list[Union], "Parameter 'x[0].size' expects uint64"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_qemus_words(
    value: object, kind: Any, error: str
) -> None:
    with pytest.raises(QmpError) as found:
        check(value, kind, "x")
    assert str(found.value) == error


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (-(1 << 63), int), (1, float), (1.5, float), ("a", Enum), (255, Uint8),
        ((1 << 64) - 1, Uint64), (None, Choice), ("", Choice), ({"any": [1]}, Any),
        ({"size": 1, "tiny": 2}, Small), ({"kind": "none", "name": "n"}, Union),
        ({"kind": "small", "size": 0}, Union), ([[1], []], list[list[int]]),
    ],
)  # fmt: skip
def test_arguments_that_fit_come_back_as_they_are(value: object, kind: Any) -> None:
    assert check(value, kind, "x") == value


def test_a_negative_number_is_a_large_one_where_no_sign_is_expected() -> None:
    assert check(-1, Uint64, "x") == (1 << 64) - 1


def test_the_schema_tells_of_unions_features_and_order() -> None:
    schema = Introspection()
    schema.add_command("c", Union, list[Enum])
    schema.add_event("E", None)
    entries = Schema(schema.entries).entries
    union = entries[entries["c"]["arg-type"]]
    assert union["tag"] == "kind"
    cases = {each["case"]: entries[each["type"]]["members"] for each in union["variants"]}
    assert cases["none"] == []
    assert [member["name"] for member in cases["small"]] == ["size", "tiny"]
    assert [member.get("features") for member in union["members"]] == [None, ["unstable"]]
    enum = entries[entries[entries["c"]["ret-type"]]["element-type"]]
    assert enum["values"] == ["b", "a"]
    assert enum["members"] == [{"name": "b"}, {"name": "a", "features": ["deprecated"]}]
    assert entries[entries["E"]["arg-type"]]["members"] == []


def test_a_boxed_command_takes_its_arguments_as_one() -> None:
    def function(monitor: object, options: Union) -> None:  # noqa: ARG001
        taken.append(options)

    taken: list[object] = []
    boxed = Command("c", function, boxed=True)
    boxed._hints["options"] = Union  # a type of this test, not of its module
    boxed.run(None, None, {"kind": "small", "size": 1})  # type: ignore[arg-type]
    assert taken == [{"kind": "small", "size": 1}]
    with pytest.raises(QmpError, match="Parameter 'size' is missing"):
        boxed.run(None, None, {"kind": "small"})  # type: ignore[arg-type]
    assert check_object({"size": 1}, Small) == {"size": 1}
