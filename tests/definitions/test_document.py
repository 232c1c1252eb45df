"""The first layer: YAML, duplicate keys, and where each value stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpufw.definitions.document import read_document


def read(folder: Path, text: str | bytes) -> tuple[object, list[str]]:
    path = folder / "x.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    document = read_document(path)
    return document.data, [str(each).removeprefix(f"{path}:") for each in document.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("-1", -1),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("'12'", "12"),
        ("7.0.EBX:5", "7.0.EBX:5"),
        ("1.5", 1.5),
        (".inf", ".inf"),  # nothing that a schema takes for a number
        ("017", "017"),
        ("9" * 5000, "9" * 5000),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_values_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    assert read(tmp_path, f"key: {text}") == ({"key": value}, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", ["3:1: 'a' is here twice, first on line 1"]),
        ("x:\n  - a: 1\n    a: 2\n    a: 3", ["3:5: 'a' is here twice", "4:5: 'a' is here twice"]),
        ("a: [1, 2", ["1:9: YAML syntax: while parsing a flow sequence, expected"]),
        ("a: b: c", ["1:5: YAML syntax: mapping values are not allowed here"]),
        ("a:\n\t- b", ["2:1: YAML syntax: while scanning for the next token, found character"]),
        ("a: 'b", ["1:6: YAML syntax: "]),
        ("a: 1\n---\nb: 2", ["2:1: YAML syntax: expected a single document"]),
        ("", ["1:1: the file holds nothing"]),
        ("# a comment\n", ["1:1: the file holds nothing"]),
        ("--- ~", ["1:5: the file holds nothing"]),
        ("a: *x", ["1:4: YAML syntax: found undefined alias"]),
        ("a: &x [*x]", ["1:4: definitions use no YAML aliases, but *x repeats this"]),
        ("a: &x 1\nb: *x", ["1:4: definitions use no YAML aliases"]),
        ("a: b\nc: \x07", ["2:4: YAML syntax: the character U+0007 is not allowed"]),
        (b"a: \xff", ["1:1: cannot be read: it is not UTF-8 text"]),
        ("a: 2001-12-31", ["1:4: YAML tag !!timestamp is not used in definitions; quote"]),
        ("a: !python/object x", ["1:4: YAML tag !python/object is not used in definitions"]),
        ("{[a]: 1, {b: c}: 2}", ["1:2: a key must be a name", "1:10: a key must be a name"]),
        ("[" * 500, ["1:1: YAML syntax: it is nested too deeply"]),
    ],
)
def test_what_is_wrong_is_told_with_line_and_column(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    _, found = read(tmp_path, text)
    assert len(found) == len(expected)
    assert all(told.startswith(start) for told, start in zip(found, expected, strict=True)), found
    assert not any("\n" in told for told in found)


def test_a_bomb_of_aliases_does_not_go_off(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    _, found = read(tmp_path, "\n".join(lines))
    assert len(found) == 1


def test_a_file_that_cannot_be_read_is_a_problem_of_that_file(tmp_path: Path) -> None:
    document = read_document(tmp_path / "gone.yaml")
    assert [each.message for each in document.problems] == [
        "cannot be read: No such file or directory"
    ]


def test_a_place_inside_a_value_is_found_or_the_nearest_around_it(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nlist:\n  - a\n  - key: 1\n    other: 2\n")
    document = read_document(path)
    places = {
        (): (1, 1),
        ("name",): (1, 1),
        ("list",): (2, 1),
        ("list", 0): (3, 5),
        ("list", 1): (4, 5),
        ("list", 1, "other"): (5, 5),
        ("list", 1, "missing"): (4, 5),
        ("missing",): (1, 1),
    }
    for where, position in places.items():
        problem = document.problem("wrong", where)
        assert (problem.line, problem.column) == position
        assert str(problem) == f"{path}:{position[0]}:{position[1]}: wrong"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.text(alphabet=" \n\t:-[]{}#&*!|>'\"%@`,?~abc019.\x00\ufeffä", max_size=40))
def test_no_text_breaks_the_reader(tmp_path: Path, text: str) -> None:
    data, found = read(tmp_path, text)
    assert data is not None or found
