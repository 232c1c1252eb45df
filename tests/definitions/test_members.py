"""Families whose members have names of their own: each a delta on the family."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpufw.core.model import CPUModel
from cpufw.definitions.compile import compile_folder
from cpufw.definitions.compiled import build_catalogue
from cpufw.definitions.index import listing
from cpufw.errors import DefinitionError

from .workshop import FEATURES, compiled, make, problems

FAMILY = """\
kind: lab-model
name: Family
description: A family
vendor: us
features: [base, wide]
members:
  - {name: small, speed: 1, aliases: [tiny, least]}
  - {name: large, speed: 9, add: [wider], description: with everything}
  - {name: poor, remove: [wide], deprecated: true}
"""


def models(folder: Path) -> dict[str, CPUModel]:
    arch = compiled(folder)
    catalogue = build_catalogue(arch.table(), [arch.models])
    return {model.name: model for model in catalogue if model.family != "one"}


def test_members_are_models_and_their_family_is_none(tmp_path: Path) -> None:
    found = models(make(tmp_path / "lab", Family=FAMILY))
    assert list(found) == ["small", "tiny", "least", "large", "poor"]
    assert {model.family for model in found.values()} == {"Family"}
    assert found["small"].identity == {"vendor": "us", "speed": 1}
    assert found["large"].identity == {"vendor": "us", "speed": 9}
    assert set(found["large"].features) == {"base", "wide", "wider"}
    assert found["large"].description == "A family; with everything"
    assert (set(found["poor"].features), found["poor"].deprecated) == ({"base"}, True)
    assert {name: model.alias_of for name, model in found.items()} == {
        "small": None, "tiny": "small", "least": "small", "large": None, "poor": None,
    }  # fmt: skip
    assert found["tiny"].identity == found["small"].identity


def test_an_alias_of_a_member_shares_its_type(tmp_path: Path) -> None:
    arch = compiled(make(tmp_path / "lab", Family=FAMILY))
    types = {row["name"]: row["type"] for row in listing({"lab": arch})}
    assert types["tiny"] == types["least"] == types["small"] == "small-lab-cpu"
    # a version's alias has a type of its own
    assert types["one-wider"] == "one-wider-lab-cpu"
    assert types["one"] == "one-lab-cpu"


def test_a_member_may_bear_the_family_name(tmp_path: Path) -> None:
    text = FAMILY.replace("name: small", "name: Family")
    assert models(make(tmp_path / "lab", Family=text))["Family"].identity["speed"] == 1


@pytest.mark.parametrize("base", ["large", "least"])
def test_a_model_may_start_from_a_member(tmp_path: Path, base: str) -> None:
    text = f"kind: lab-model\nname: Own\ndescription: Mine\nbase: {base}\nspeed: 4\n"
    own = models(make(tmp_path / "lab", Family=FAMILY, Own=text))["Own"]
    assert own.identity == {"vendor": "us", "speed": 4}
    assert ("wider" in own.features) == (base == "large")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            FAMILY.replace("speed: 9", "vendor: us"),
            "Family.yaml:8:19: vendor is us already in the family",
        ),
        (
            FAMILY.replace("remove: [wide]", "remove: [wider]"),
            "Family.yaml:9:27: cannot remove wider: it is not there",
        ),
        (
            FAMILY.replace("add: [wider]", "remove: [base]"),
            "Family.yaml:8:5: wide requires base",
        ),
        (
            FAMILY.replace("name: poor", "name: small"),
            "Family.yaml:9:6: the name 'small' is taken by another model",
        ),
        (
            FAMILY.replace("least]", "tiny]"),
            "Family.yaml:7:45: the name 'tiny' is taken by another model",
        ),
        (
            FAMILY + "aliases: [kin]\n",
            "Family.yaml:10:1: a family with members has no aliases of its own",
        ),
        (
            FAMILY + "versions: [{version: 1}]\n",
            "Family.yaml:10:1: a family with members has no versions of its own",
        ),
        (
            FAMILY.replace("poor, ", "poor, with: {nested: {add: [wider]}}, "),
            "Family.yaml:9:25: the family has nothing that comes with nested",
        ),
    ],
)
def test_what_makes_no_sense_is_reported_where_it_stands(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert problems(make(tmp_path / "lab", Family=text)) == [expected]


def test_nothing_starts_from_a_family(tmp_path: Path) -> None:
    text = "kind: lab-model\nname: Own\ndescription: Mine\nbase: Family\n"
    assert problems(make(tmp_path / "lab", Family=FAMILY, Own=text)) == [
        "Own.yaml:4:1: 'Family' is a family: start from one of its members, small, large, poor"
    ]


def test_without_arch_a_model_is_of_those_architectures_that_have_its_base(tmp_path: Path) -> None:
    features = FEATURES.replace("arch: lab", "arch: [lab, lab64]")
    wide = f"{FAMILY}arch: lab64\n"
    own = "kind: lab-model\nname: {0}\ndescription: Mine\nbase: {1}\nspeed: 4\n"
    folder = make(
        tmp_path / "lab",
        features=features,
        Family=wide,
        Own=own.format("Own", "large"),
        Both=own.format("Both", "one"),
    )
    archs = compile_folder(folder, [folder / "schema"])
    assert {name for name, arch in archs.items() if "Own" in arch.models} == {"lab64"}
    assert {name for name, arch in archs.items() if "Both" in arch.models} == {"lab", "lab64"}
    (folder / "Own.yaml").write_text(own.format("Own", "ones"))
    assert problems(folder) == ["Own.yaml:4:1: base model 'ones' is not known; did you mean one?"]


def test_names_that_differ_only_in_case_are_one_name_where_case_does_not_matter(
    tmp_path: Path,
) -> None:
    arch = compiled(make(tmp_path / "lab", Family=FAMILY.replace("least", "LARGE")))
    assert {"LARGE", "large"} <= set(arch.models)
    build_catalogue(arch.table(), [arch.models])
    with pytest.raises(DefinitionError, match="'LARGE' and 'large' differ only in case"):
        build_catalogue(arch.table(), [arch.models], case_sensitive=False)
