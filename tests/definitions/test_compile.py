"""The second and third layer: schema and meaning, every violation with its place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cpufw.definitions.compile import compile_folder
from cpufw.definitions.compiled import CompiledArch, build_catalogue
from cpufw.errors import DefinitionError

from .workshop import FEATURES, MODEL_SCHEMA, ONE, compiled, make, problems

HEAD = "kind: lab-model\nname: two\ndescription: The second\n"


def test_versions_are_deltas_on_the_first(tmp_path: Path) -> None:
    arch = compiled(make(tmp_path / "lab"))
    catalogue = build_catalogue(arch.table(), [arch.models])
    assert [model.name for model in catalogue] == ["one", "one-v1", "one-v2", "one-wider"]
    one, first, second, alias = catalogue
    assert set(one.features) == set(first.features) == {"base", "wide"}
    assert set(second.features) == set(alias.features) == {"base", "wide", "wider"}
    assert first.identity == {"vendor": "us", "speed": 7}
    assert second.identity == {"vendor": "us", "speed": 8}
    assert (one.alias_of, one.version) == ("one-v1", None)
    assert (second.alias_of, second.version) == (None, 2)
    assert (alias.alias_of, alias.version) == ("one-v2", None)
    assert second.description == "The first; wider than before"
    assert {model.family for model in catalogue} == {"one"}


def test_a_later_version_may_be_deprecated_alone(tmp_path: Path) -> None:
    arch = compiled(make(tmp_path / "lab", one=ONE + "    deprecated: true\n"))
    deprecated = {name for name, record in arch.models.items() if record["deprecated"]}
    assert deprecated == {"one-v2", "one-wider"}


@pytest.mark.parametrize("base", ["one-v2", "one-wider"])
@pytest.mark.parametrize("same_folder", [True, False])
def test_a_model_may_start_from_another(tmp_path: Path, base: str, same_folder: bool) -> None:
    text = (
        HEAD + f"base: {base}\nspeed: 9\nremove: [broad]\nadd: [nested]\n"
        "versions: [{version: 1}]\n"
    )
    if same_folder:
        arch = compiled(make(tmp_path / "lab", two=text))
    else:
        below = compiled(make(tmp_path / "lab"))
        folder = make(tmp_path / "user", two=text)
        for name in ("features", "one"):
            (folder / f"{name}.yaml").unlink()
        arch = compiled(folder, {"lab": below})
        assert set(arch.models) == {"two", "two-v1"}
    record = arch.models["two-v1"]
    assert record["features"].split() == ["base", "wide", "nested"]
    assert record["identity"] == {"vendor": "us", "speed": 9}
    assert record["family"] == "two"


def test_a_chain_of_bases_is_followed_whatever_the_files_order(tmp_path: Path) -> None:
    chain = {
        "a": HEAD.replace("two", "a") + "base: b\nadd: [nested]\n",
        "b": HEAD.replace("two", "b") + "base: z\nadd: [wider]\n",
        "z": HEAD.replace("two", "z") + "base: one\nspeed: 1\n",
    }
    arch = compiled(make(tmp_path / "lab", **chain))
    assert arch.models["a"]["features"].split() == ["base", "wide", "wider", "nested"]
    assert arch.models["a"]["identity"]["speed"] == 1


def test_what_comes_along_goes_with_what_it_requires(tmp_path: Path) -> None:
    lead = HEAD + "features: [base, wide]\nwith: {nested: [wider], wide: [nested]}\n"
    derived = HEAD.replace("two", "three") + "base: two\nremove: [wide]\n"
    arch = compiled(make(tmp_path / "lab", two=lead, three=derived))
    assert arch.models["three"]["companions"] == {"nested": "", "wide": "nested"}


def test_what_comes_along_can_be_changed_by_a_derived_model(tmp_path: Path) -> None:
    lead = HEAD + "features: [base]\nwith: {nested: [wide]}\n"
    derived = HEAD.replace("two", "three") + (
        "base: two\nwith: {nested: {add: [wider]}, base: {add: [nested]}}\n"
    )
    arch = compiled(make(tmp_path / "lab", two=lead, three=derived))
    assert arch.models["two"]["companions"] == {"nested": "wide"}
    assert arch.models["three"]["companions"] == {"nested": "wide wider", "base": "nested"}


FEATURE_PROBLEMS = [
    # (what to replace, by what, the problems)
    ("w0:1\n", "w0:0\n", ["features.yaml:8:5: wide and base share the bit w0:0"]),
    ("[w0:2, w0:3]", "[w1:0, w0:3]", ["features.yaml:15:5: nested and wider share the bit w1:0"]),
    ("name: nested", "name: wide", ["features.yaml:14:5: 'wide' also names the feature wide"]),
    ("[broad]", "[nested]", ["features.yaml:14:5: 'nested' also names the feature wider"]),
    (
        "requires: [base]",
        "requires: [bass]",
        ["features.yaml:9:16: feature 'bass' is not known; did you mean base?"],
    ),
    (
        "place: w0:0",
        "place: w0:0\n    requires: [wider]",
        ["features.yaml:4:1: lab features require one another in a circle"],
    ),
    ("arch: lab", "arch: lab\narch: lab", ["features.yaml:3:1: 'arch' is here twice"]),
    ("models: lab-model\n", "", ["features.yaml:1:1: features: 'models' is a required property"]),
    ("place: w1:0", "plcae: w1:0", [
        "features.yaml:14:5: features.3: 'place' is a required property",
        "features.yaml:15:5: 'plcae' is not a key here; did you mean place?",
    ]),
    ("place: w1:0", "place: 5", [
        "features.yaml:15:5: features.3.place: 5 is not of type 'string', or 5 is not of type",
    ]),
    ("place: w1:0", "place: w1:0\n    x-note: mine", []),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), FEATURE_PROBLEMS)
def test_a_wrong_feature_is_told_with_its_place(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    assert FEATURES.count(old) == 1
    folder = make(tmp_path / "lab", features=FEATURES.replace(old, new))
    found = problems(folder)
    assert len(found) == len(expected), found
    assert all(told.startswith(start) for told, start in zip(found, expected, strict=True)), found


MODEL_PROBLEMS = [
    ("features: [base, waid]\n", ["4:18: feature 'waid' is not known; did you mean wide?"]),
    ("features: [wider]\n", ["4:1: wider requires base, wide"]),
    ("features: [wide, nested, wider]\n", ["4:1: wide requires base", "4:1: wider requires base"]),
    ("features: wide\n", ["4:1: features: 'wide' is not of type 'array'"]),
    ("features: [base]\nspeed: 0\n", ["5:1: speed: 0 is less than the minimum of 1"]),
    ("featuers: [base]\n", ["4:1: 'featuers' is not a key here; did you mean features?"]),
    ("base: one-v3\n", ["4:1: base model 'one-v3' is not known; did you mean one-v"]),
    ("base: two\n", ["4:1: base goes round in a circle: two -> two"]),
    ("base: one\nfeatures: [nested]\n", ["5:1: features: it is not allowed here"]),
    ("base: one\nadd: [nested, wide]\n", ["5:15: cannot add wide: it is there already"]),
    ("base: one\nremove:\n- nested\n", ["6:3: cannot remove nested: it is not there"]),
    ("base: one\nremove: [base]\n", ["5:1: wide requires base"]),
    ("base: one\nadd: [x]\nremove: [y]\n", ["5:7: feature 'x' is not known", "6:10: feature 'y'"]),
    ("features: [base]\nwith: {nestd: [wide]}\n", ["5:8: feature 'nestd' is not known; did you"]),
    ("features: [base]\nwith: {nested: [wider]}\n", ["4:1: wider (with nested) requires wide"]),
    ("features: []\nversions: [{version: 2}]\n", ["5:13: version 2 stands where version 1 is"]),
    (
        "features: [base]\nspeed: 1\nversions:\n- version: 1\n  speed: 2\n",
        ["7:3: version 1 is the model itself and changes nothing"],
    ),
    (
        "features: [base]\nspeed: 1\nversions:\n- version: 1\n- version: 2\n  speed: 1\n",
        ["9:3: speed is 1 already in version 1"],
    ),
    (
        "features: [base]\nversions:\n- version: 1\n- version: 2\n"
        "  remove: [wide]\n  add: [base]\n",
        ["8:12: cannot remove wide: it is not there", "9:9: cannot add base: it is there already"],
    ),
    (
        "features: [base]\nversions:\n- version: 1\n- version: 2\n  add: [wider]\n",
        ["7:3: wider requires wide"],
    ),
    (
        "features: []\nversions:\n- version: 1\n- version: 2\n  alias: one\n",
        ["8:3: the name 'one' is taken by another model"],
    ),
    (
        "features: []\nversions:\n- version: 1\n- version: 2\n  with: {base: {add: [wide]}}\n",
        ["8:10: version 1 has nothing that comes with base"],
    ),
    ("features: []\nfeatures: []\n", ["5:1: 'features' is here twice, first on line 4"]),
    ("features: [}\n", ["4:12: YAML syntax: while parsing a flow node, expected the node content"]),
]


@pytest.mark.parametrize(("rest", "expected"), MODEL_PROBLEMS)
def test_a_wrong_model_is_told_with_its_place(
    tmp_path: Path, rest: str, expected: list[str]
) -> None:
    folder = make(tmp_path / "lab", two=HEAD + rest)
    found = problems(folder)
    assert len(found) == len(expected), found
    starts = [f"two.yaml:{start}" for start in expected]
    assert all(told.startswith(start) for told, start in zip(found, starts, strict=True)), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("just text", "1:1: a definition is a mapping with a 'kind'"),
        ("name: two", "1:1: 'kind' is missing, expected one of features, lab-model"),
        ("kind: 5", "1:1: 'kind' is missing"),
        ("kind: lab-modle", "1:1: kind 'lab-modle' has no schema; did you mean lab-model?"),
        (HEAD.replace("two", "tow"), "2:1: model 'tow' must be in a file of that name"),
        (HEAD.replace("two", "one"), "2:1: model 'one' is also defined in "),
        (HEAD + "base: dyn\n", "4:1: 'dyn' is what the accelerator makes of it"),
    ],
)
def test_a_document_that_is_no_model_of_this_folder(
    tmp_path: Path, text: str, expected: str
) -> None:
    dynamic = HEAD.replace("two", "dyn") + "dynamic: true\n"
    (told,) = problems(make(tmp_path / "lab", two=text, dyn=dynamic))
    assert told.startswith(f"two.yaml:{expected}")


def test_a_circle_of_bases_is_told_once(tmp_path: Path) -> None:
    circle = {
        name: HEAD.replace("two", name) + f"base: {base}\n"
        for name, base in (("a", "b"), ("b", "c"), ("c", "a"))
    }
    (told,) = problems(make(tmp_path / "lab", **circle))
    assert re.match(r"c\.yaml:4:1: base goes round in a circle: a -> b -> c -> a$", told)


def test_every_violation_of_every_file_is_told_and_nothing_that_only_follows(
    tmp_path: Path,
) -> None:
    files = {
        "features": FEATURES.replace("w1:0", "w0:0"),
        "a": HEAD.replace("two", "a") + "features: [waid]\n",
        "b": HEAD.replace("two", "b") + "speed: fast\nfeatures: [base]\n",
        "c": HEAD.replace("two", "c") + "base: b\n",  # not a fault of its own
        "d": "kind: [\n",
        "e": HEAD.replace("two", "e") + "features: [wide]\nsped: 1\nvendor: 5\n",
    }
    assert [told.split(": ")[0] for told in problems(make(tmp_path / "lab", **files))] == [
        "a.yaml:4:12",
        "b.yaml:4:1",
        "d.yaml:2:1",
        "e.yaml:5:1",
        "e.yaml:6:1",
        "features.yaml:15:5",
    ]


def test_models_are_not_blamed_for_a_features_file_that_cannot_be_read(tmp_path: Path) -> None:
    (told,) = problems(make(tmp_path / "lab", features="kind: features\narch: [\n"))
    assert told.startswith("features.yaml:")


def test_models_without_an_architecture_are_told(tmp_path: Path) -> None:
    folder = make(tmp_path / "lab")
    (folder / "features.yaml").unlink()
    assert problems(folder) == [
        "one.yaml:1:1: no architecture's models are of kind lab-model",
    ]


def test_features_are_defined_in_one_place(tmp_path: Path) -> None:
    folder = make(tmp_path / "lab")
    below = {"lab": compiled(folder)}
    (told, *_) = problems(make(tmp_path / "again"), below)
    assert told == "features.yaml:2:1: the features of lab are defined already"


def test_a_name_of_another_folder_s_model_is_taken(tmp_path: Path) -> None:
    below = {"lab": compiled(make(tmp_path / "lab"))}
    folder = make(tmp_path / "user")
    (folder / "features.yaml").unlink()
    assert [told.partition(": ")[2] for told in problems(folder, below)] == [
        f"the name '{name}' is taken by another model"
        for name in ("one", "one-v1", "one-v2", "one-wider")
    ]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("lab-model", '{"type": "object",\n "x": }', "2:7: JSON syntax: Expecting value"),
        ("lab-model", '{"type": "objekt"}', "1:1: it is no JSON schema: $.type: 'objekt'"),
        ("lab-model", b"\xff", "1:1: "),
        ("features", "[]", "1:1: it is no JSON schema: $: [] is not of type"),
    ],
)
def test_a_broken_schema_is_told_as_such(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    folder = make(tmp_path / "lab")
    schema = folder / "schema" / f"{name}.schema.json"
    schema.write_bytes(content.encode() if isinstance(content, str) else content)
    found = problems(folder)
    assert found[0].startswith(f"schema/{name}.schema.json:{expected}"), found
    with pytest.raises(DefinitionError):
        compile_folder(folder, [folder / "schema"])


def test_a_schema_that_asks_for_less_does_not_break_the_compiler(tmp_path: Path) -> None:
    folder = make(tmp_path / "lab", two="kind: lab-model\n", three="kind: lab-model\nname: three\n")
    (folder / "schema" / "lab-model.schema.json").write_text("{}")
    assert problems(folder) == [
        "three.yaml:1:1: lab-model: 'description' is missing",
        "two.yaml:1:1: lab-model: 'description' is missing",
        "two.yaml:1:1: lab-model: 'name' is missing",
    ]


def test_a_schema_that_changes_while_the_program_runs_is_read_again(tmp_path: Path) -> None:
    folder = make(tmp_path / "lab")
    assert problems(folder) == []
    stricter = {**MODEL_SCHEMA, "properties": {**MODEL_SCHEMA["properties"], "speed": False}}
    (folder / "schema" / "lab-model.schema.json").write_text(json.dumps(stricter))
    assert problems(folder) == ["one.yaml:5:1: speed: it is not allowed here"]


def test_the_error_holds_every_problem_in_file_order(tmp_path: Path) -> None:
    folder = make(tmp_path / "lab", two=HEAD + "features: [x]\n", a=HEAD + "features: []\n")
    with pytest.raises(DefinitionError) as caught:
        compile_folder(folder, [folder / "schema"])
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [f"{folder}/a.yaml"] + [
        f"{folder}/two.yaml"
    ] * (len(lines) - 1)
    assert len(caught.value.problems) == len(lines) >= 2


def test_progress_counts_the_files(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = make(tmp_path / "lab", two=HEAD + "features: []\n")
    compile_folder(folder, [folder / "schema"], progress=lambda *step: seen.append(step))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_what_is_compiled_is_plain_data(tmp_path: Path) -> None:
    arch = compiled(make(tmp_path / "lab"))
    assert isinstance(arch, CompiledArch)
    assert json.loads(json.dumps(arch.models)) == arch.models
    assert json.loads(json.dumps(arch.features)) == arch.features
