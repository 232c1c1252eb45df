"""Comparing, combining and expanding CPUs of an architecture small enough to see through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cpufw.core.algebra import (
    Comparison,
    EqualIdentities,
    Operand,
    Relation,
    common,
    compare,
    runnable,
)
from cpufw.core.arch import Architecture
from cpufw.core.features import Feature, FeatureTable
from cpufw.core.model import Catalogue, CPUModel, parse_cpu
from cpufw.core.model_algebra import ExpandedModel, ModelAlgebra
from cpufw.errors import ModelError, PropertyError

from .lab import CATALOGUE, LEVELS, TABLE, LabAccelerator, LabCPU, arch_id, lab_machine, model
from .lab import registry as lab_registry

IDENTICAL, SUPERSET = Relation.IDENTICAL, Relation.SUPERSET
SUBSET, INCOMPATIBLE = Relation.SUBSET, Relation.INCOMPATIBLE


class FasterIsMore:
    """A faster CPU can stand in for a slower one; who made it is only a name."""

    def compare_identity(
        self, a: Mapping[str, Any], b: Mapping[str, Any]
    ) -> tuple[Relation, tuple[str, ...]]:
        names = tuple(name for name in ("speed", "maker") if a.get(name) != b.get(name))
        if "speed" not in names:
            return IDENTICAL, names
        return SUPERSET if a.get("speed", 0) > b.get("speed", 0) else SUBSET, names

    def common_identity(self, identities: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        return {"speed": min(each.get("speed", 0) for each in identities)}


def cpu(features: str, **identity: Any) -> Operand:
    return Operand("a CPU", TABLE.set(features.split()), identity)


def verdict(a: Operand, b: Operand) -> Comparison:
    found = compare(a, b, FasterIsMore())
    assert compare(b, a, FasterIsMore()).relation is found.relation.mirror
    return found


def lab_algebra(catalogue: Catalogue = CATALOGUE) -> ModelAlgebra:
    architecture = Architecture(
        "lab", "laboratory", Path(), lambda: LabCPU, LEVELS, arch_id, rules=FasterIsMore
    )
    registry = lab_registry(catalogue=catalogue)

    def make(text: str) -> Any:
        request = parse_cpu(text)
        return registry.cpu_class(f"{request.model}-lab-cpu")(**request.settings())

    return ModelAlgebra(architecture, catalogue, make)


# --- compare ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "relation", "responsible"),
    [
        (cpu("base", speed=7), cpu("base", speed=7), IDENTICAL, ()),
        (cpu("base wide"), cpu("base"), SUPERSET, ("wide",)),
        (cpu("base wide"), cpu("base nested"), INCOMPATIBLE, ("wide", "nested")),
        (cpu("base", speed=8), cpu("base", speed=7), SUPERSET, ("speed",)),
        (cpu("base wide", speed=8), cpu("base", speed=7), SUPERSET, ("wide", "speed")),
        (cpu("base wide", speed=7), cpu("base", speed=8), INCOMPATIBLE, ("wide", "speed")),
        # A name does not decide where something else does …
        (cpu("base wide", maker="a"), cpu("base", maker="b"), SUPERSET, ("wide", "maker")),
        (cpu("base wide", maker="b"), cpu("base", maker="a"), SUPERSET, ("wide", "maker")),
        # … and where nothing else does they are not identical all the same.
        (cpu("base", maker="b"), cpu("base", maker="a"), SUPERSET, ("maker",)),
        (cpu("base", maker="a"), cpu("base"), SUPERSET, ("maker",)),
    ],
)
def test_the_verdict_and_what_is_responsible(
    a: Operand, b: Operand, relation: Relation, responsible: tuple[str, ...]
) -> None:
    found = verdict(a, b)
    assert (found.relation, found.responsible) == (relation, responsible)


def test_it_is_told_who_has_what() -> None:
    found = verdict(cpu("base wide", speed=1), cpu("base nested", speed=1))
    assert (list(found.only_a), list(found.only_b), found.values) == (["wide"], ["nested"], ())


def test_without_rules_only_equal_identities_go_together() -> None:
    rules = EqualIdentities()
    same, other = cpu("base", speed=7), cpu("base wide", speed=8)
    assert compare(same, cpu("base wide", speed=7), rules).relation is SUBSET
    found = compare(same, other, rules)
    assert (found.relation, found.responsible) == (INCOMPATIBLE, ("wide", "speed"))
    assert common([same, same], rules).identity == {"speed": 7}
    with pytest.raises(ModelError, match="contradict one another in speed"):
        common([same, other], rules)


def test_architectures_do_not_mix() -> None:
    foreign = Operand("foreign", FeatureTable("other", [Feature("base", ("w0:0",))]).empty, {})
    with pytest.raises(ModelError, match="lab and other"):
        verdict(cpu("base"), foreign)
    with pytest.raises(ModelError, match="lab and other"):
        common([cpu("base"), foreign], FasterIsMore())


# --- baseline -----------------------------------------------------------------------------


def test_what_all_have_is_common() -> None:
    found = common(
        iter([cpu("base wide wider clock", speed=9), cpu("base wide nested", speed=8)]),
        FasterIsMore(),
    )
    assert (list(found.features), found.identity) == (["base", "wide"], {"speed": 8})


def test_what_cannot_migrate_or_lacks_what_it_requires_is_left_out() -> None:
    shared = common([cpu("wide wider tied clock"), cpu("wide wider tied clock")], FasterIsMore())
    assert list(shared.features) == ["clock"]
    assert list(runnable(TABLE.set(["base", "wide", "nested-fast"]))) == ["base", "wide"]


def test_many_identities_are_combined_without_being_kept() -> None:
    many = (cpu("base", speed=speed, maker=str(speed)) for speed in range(5000, 2, -1))
    assert common(many, FasterIsMore()).identity == {"speed": 3}


def test_nothing_has_no_baseline() -> None:
    with pytest.raises(ModelError, match="at least one model or host"):
        common([], FasterIsMore())


# --- expand -------------------------------------------------------------------------------


def test_a_static_expansion_is_a_static_model_and_what_differs() -> None:
    algebra = lab_algebra()
    expanded = algebra.expand("one-v2,-wider,speed=3")
    assert expanded == ExpandedModel("empty", {"speed": 3, "base": True, "wide": True})
    assert expanded.to_qmp() == {"model": {"name": "empty", "props": expanded.props}}


def test_a_full_expansion_has_every_property() -> None:
    expanded = lab_algebra().expand("one-v2,-wider", "full")
    assert expanded.name == "one-v2"
    assert expanded.props == {
        "speed": 8,
        "maker": "",
        "base": True,
        "wide": True,
        "wider": False,
        "nested": False,
        "nested-fast": False,
        "clock": False,
        "tied": False,
    }


@pytest.mark.parametrize("text", ["one", "one-fast,-wide", "two,+nested", "empty", "one,speed=7"])
@pytest.mark.parametrize("kind", ["static", "full"])
def test_expanding_again_changes_nothing(text: str, kind: str) -> None:
    algebra = lab_algebra()
    once = algebra.expand(text, kind)
    assert algebra.expand(once, kind) == once
    assert algebra.compare(text, once).relation is IDENTICAL
    assert algebra.compare(algebra.expand(once, "full"), text).relation is IDENTICAL


def test_companions_are_written_out() -> None:
    algebra = lab_algebra()
    assert algebra.expand("two").props == {"base": True, "nested": True, "nested-fast": True}
    assert algebra.expand("two,-nested-fast").props == {"base": True, "nested": True}


def test_the_static_model_of_the_same_identity_goes_before_the_greatest_below() -> None:
    statics = [
        model("slow-base", "base", static=True, identity={"speed": 1}),
        model("fast-base", "base wide", static=True, identity={"speed": 5}),
        model("faster-base", "base wide clock", static=True, identity={"speed": 6}),
        model("some", "base clock", identity={"speed": 5}),
        model("other", "base wide clock", identity={"speed": 5}),
        model("slow", "wider wide base", identity={"speed": 4}),
        model("odd", "base"),
    ]
    algebra = lab_algebra(Catalogue("lab", TABLE, statics))
    assert algebra.expand("some") == ExpandedModel("fast-base", {"clock": True, "wide": False})
    assert algebra.expand("other") == ExpandedModel("fast-base", {"clock": True})
    assert algebra.expand("slow").name == "slow-base"
    for name in ("some", "other", "slow", "fast-base"):
        assert algebra.compare(name, algebra.expand(name)).relation is IDENTICAL
    with pytest.raises(ModelError, match=r"odd has no static expansion.*ask for the full one"):
        algebra.expand("odd")


def test_a_value_that_users_cannot_set_stays() -> None:
    models = [*CATALOGUE, model("cached", "base", identity={"caches": [1, 2]})]
    algebra = lab_algebra(Catalogue("lab", TABLE, models))
    expanded = algebra.expand("cached")
    assert expanded.props == {"caches": [1, 2], "base": True}
    assert algebra.expand(expanded) == expanded


def test_features_that_differ_all_together_go_by_the_name_of_their_group() -> None:
    features = [
        Feature("one", ("w0:0",), groups=("pair",)),
        Feature("two", ("w0:1",), groups=("pair",)),
        Feature("three", ("w0:2",)),
    ]
    table = FeatureTable("lab", features)
    models = [
        CPUModel("lab", "bare", "bare", table.empty, static=True),
        CPUModel("lab", "full", "full", table.set(["pair", "three"])),
        CPUModel("lab", "half", "half", table.set(["two"])),
    ]
    algebra = lab_algebra(Catalogue("lab", table, models))
    expanded = algebra.expand("full")
    assert expanded == ExpandedModel("bare", {"pair": True, "three": True})
    assert algebra.expand(expanded) == expanded
    assert algebra.compare("bare", "full").responsible == ("pair", "three")
    assert algebra.compare("bare", "half").responsible == ("two",)
    assert algebra.compare("full", "half").responsible == ("one", "three")


def test_what_is_no_property_is_refused() -> None:
    with pytest.raises(PropertyError, match="shoes"):
        lab_algebra().expand(ExpandedModel("one", {"shoes": True}))


def test_a_dynamic_model_needs_a_machine() -> None:
    algebra = lab_algebra()
    with pytest.raises(ModelError, match="needs an accelerator"):
        algebra.expand("host")
    accelerator = LabAccelerator("base wide tied")
    with lab_machine(cpu="host", accelerator=accelerator) as machine:
        assert algebra.expand("host", machine=machine).props == {
            "maker": "the host's maker",
            "base": True,
            "wide": True,
        }


# --- operands -----------------------------------------------------------------------------


def test_names_that_always_mean_the_same_are_told_apart() -> None:
    algebra = lab_algebra()
    assert [model.name for model, _ in algebra.named] == ["one-v1", "one-v2", "two"]


def test_a_host_is_what_its_accelerator_gives() -> None:
    algebra = lab_algebra()
    host = algebra.host(LabAccelerator("base wide wider"))
    assert host.name == "lab"
    assert algebra.compare("one-v1,speed=7,maker=someone", host).only_b == TABLE.set(["wider"])
