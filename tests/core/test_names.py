"""What goes by which name: case, and aliases that share a type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cpufw.core.arch import Architecture
from cpufw.core.model import AliasRule, Catalogue, CPUModel
from cpufw.core.registry import Registry
from cpufw.errors import NotFoundError

from .lab import LEVELS, TABLE, LabCPU, arch_id, model

MODELS = [
    model("Big", "base wide"),
    model("huge", "base wide", family="Big", alias_of="Big"),
    model("one", "base", alias_of="one-v1"),
    model("one-v1", "base", family="one", version=1),
    model("one-first", "base", family="one", alias_of="one-v1"),
]


def registry(case_sensitive: bool) -> Registry:
    known = Architecture(
        "lab", "", Path(), lambda: LabCPU, LEVELS, arch_id, case_sensitive=case_sensitive
    )
    catalogue = Catalogue("lab", TABLE, MODELS, case_sensitive)
    return Registry({"lab": known}, lambda _: catalogue, lambda _: "lab-cpu")


def test_an_architecture_may_take_names_in_any_case() -> None:
    catalogue = Catalogue("lab", TABLE, MODELS, case_sensitive=False)
    assert "BIG" in catalogue
    assert catalogue["bIg"].name == "Big"
    assert catalogue.resolve("HUGE").alias_of == "Big"
    assert [each.name for each in catalogue] == [each.name for each in MODELS]
    assert 7 not in catalogue
    with pytest.raises(NotFoundError, match="did you mean Big"):
        catalogue["BIGG"]


def test_otherwise_case_matters() -> None:
    catalogue = Catalogue("lab", TABLE, MODELS)
    assert "BIG" not in catalogue
    with pytest.raises(NotFoundError, match="did you mean Big"):
        catalogue["BIG"]
    with pytest.raises(NotFoundError):
        registry(True).cpu_class("big-lab-cpu")


def test_a_type_has_one_class_whatever_case_it_was_asked_in() -> None:
    known = registry(False)
    big = known.cpu_class("BIG-lab-cpu")
    assert big.type_name == "Big-lab-cpu"
    assert big is known.cpu_class("Big-lab-cpu") is known.cpu_class("big-lab-cpu")


@pytest.mark.parametrize(
    ("name", "type_name"),
    [
        ("huge", "Big-lab-cpu"),
        ("Big", "Big-lab-cpu"),
        ("one", "one-lab-cpu"),
        ("one-first", "one-first-lab-cpu"),
    ],
)
def test_only_an_alias_of_a_version_has_a_type_of_its_own(name: str, type_name: str) -> None:
    assert registry(True).type_name("lab", name) == type_name


def test_what_shares_a_type_is_no_type_itself() -> None:
    known = registry(True)
    assert list(known.type_names()) == [
        "Big-lab-cpu", "one-lab-cpu", "one-v1-lab-cpu", "one-first-lab-cpu",
    ]  # fmt: skip
    with pytest.raises(NotFoundError, match="CPU type 'huge-lab-cpu' is not known"):
        known.cpu_class("huge-lab-cpu")


def test_a_model_is_made_when_it_is_first_asked_for_and_then_kept() -> None:
    made: list[str] = []

    def maker(each: CPUModel) -> Callable[[], CPUModel]:
        return lambda: made.append(each.name) or each  # type: ignore[func-returns-value]

    models = [*MODELS, model("one-v2", "base wide", family="one", version=2)]
    catalogue = Catalogue("lab", TABLE, {each.name: maker(each) for each in models})
    assert ("one" in catalogue, len(catalogue), list(catalogue.names)) == (
        True,
        len(models),
        [each.name for each in models],
    )
    assert made == []
    assert catalogue["one"] is catalogue["one"] is models[2]
    assert made == ["one"]
    assert catalogue.resolve("one", AliasRule.NEWEST).alias_of == "one-v2"
    assert made == ["one", "one-v2"]
    assert list(catalogue) == models
    assert sorted(made) == sorted(each.name for each in models)
