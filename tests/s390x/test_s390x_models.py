"""Every s390x model has, allows and denies what QEMU 10.0.2's does."""

from typing import Any

import pytest
from s390x_reference import ANSWERS, FACTS, GROUPS, MODELS, written_out

from cpufw.core.cpu import CPUState
from cpufw.core.features import FeatureTable
from cpufw.core.model_algebra import ExpandedModel
from cpufw.errors import PropertyError
from cpufw.framework import Framework
from cpufw_s390x.levels import allowed, level_of
from cpufw_s390x.rules import S390xRules

EVERY = sorted(MODELS)


@pytest.fixture(scope="module")
def table(framework: Framework) -> FeatureTable:
    return framework.catalogue("s390x").table


def static(framework: Framework, cpu: CPUState) -> dict[str, Any]:
    algebra = framework.algebra("s390x")
    found = S390xRules().static(algebra.operand(cpu), algebra.catalogue)
    return {"name": found.name, "props": dict(found.props)}


def without_empty(model: dict[str, Any]) -> dict[str, Any]:
    """QEMU leaves out `props` where there are none."""
    return {"props": {}, **model}


def test_the_names_are_those_of_the_reference(framework: Framework) -> None:
    assert {model.name for model in framework.catalogue("s390x")} == set(MODELS)
    assert framework.cpu_class("z14-s390x-cpu").model.name == "z14"


def test_features_and_groups_are_those_of_the_reference(table: FeatureTable) -> None:
    assert {feature.name for feature in table} | set(table.groups) == set(FACTS["desc"])
    assert {name: set(members) for name, members in table.groups.items()} == {
        name: set(members) for name, members in GROUPS.items()
    }


def test_requirements_are_what_qemu_warns_of(table: FeatureTable) -> None:
    ours = {each.name: sorted(each.requires) for each in table if each.requires}
    assert ours == ANSWERS["requires"]


@pytest.mark.parametrize("name", EVERY)
def test_a_model_has_and_allows_what_the_reference_says(framework: Framework, name: str) -> None:
    model = framework.catalogue("s390x")[name]
    assert set(model.features) == written_out(MODELS[name]["on"])
    assert set(allowed(model.table, level_of(model.identity))) == written_out(MODELS[name]["allow"])
    assert model.static == name.endswith("-base")
    assert set(model.table.deprecated) == set(MODELS[name]["deprecated-props"])


@pytest.mark.parametrize("name", EVERY)
def test_what_a_model_denies_cannot_be_turned_on(framework: Framework, name: str) -> None:
    cpu = framework.cpu(name, "s390x")
    for prop in MODELS[name]["deny"]:
        cpu.set(prop, False)
        with pytest.raises(PropertyError, match=f"{prop} cannot be turned on"):
            cpu.set(prop, True)
    for prop in MODELS[name]["allow"]:
        cpu.set(prop, True)
        assert cpu.get(prop) is True


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "z900,vx=on",
            "z900-s390x-cpu: vx cannot be turned on, it came with generation 13 GA1 "
            "and z900 is of generation 7 GA1",
        ),
        (
            "z9EC,msa3=on",
            "z9EC-s390x-cpu: msa3 cannot be turned on, it came with generation 10 GA3 "
            "and z9EC is of generation 9 GA1",
        ),
        ("gen17a,idter=on", "gen17a-s390x-cpu: idter cannot be turned on, no model has it yet"),
    ],
)
def test_a_refusal_says_with_what_the_feature_came(
    framework: Framework, text: str, sentence: str
) -> None:
    with pytest.raises(PropertyError) as caught:
        framework.cpu(text, "s390x")
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", EVERY)
def test_static_expansion_of_a_model(framework: Framework, name: str) -> None:
    found = static(framework, framework.cpu(name, "s390x"))
    assert found == without_empty(MODELS[name]["static"])


def test_static_expansion_of_models_with_properties(framework: Framework) -> None:
    algebra = framework.algebra("s390x")
    for name, props, answer in ANSWERS["static"]:
        found = static(framework, algebra.cpu(ExpandedModel(name, props)))
        assert found == without_empty(answer["model"]), (name, props)


def test_a_static_expansion_expands_to_itself(framework: Framework) -> None:
    algebra, rules = framework.algebra("s390x"), S390xRules()
    for name, props, _ in ANSWERS["static"]:
        start = algebra.operand(ExpandedModel(name, props))
        first = rules.static(start, algebra.catalogue)
        again = rules.static(algebra.operand(first), algebra.catalogue)
        assert again == first


@pytest.mark.parametrize("name", EVERY)
def test_full_expansion_of_a_model(framework: Framework, name: str) -> None:
    found = S390xRules().full(framework.algebra("s390x").operand(name)).props
    assert {prop for prop, on in found.items() if on} == set(MODELS[name]["on"])


def test_groups_show_exactly_while_all_their_members_are_on(framework: Framework) -> None:
    for prop, changes in FACTS["groups"].items():
        for case, change in changes.items():
            name, _, value = case.rpartition(":")
            cpu = framework.cpu(f"{name},{prop}={'off' if value == 'False' else 'on'}", "s390x")
            gone = [group for group in change["gone"] if group in GROUPS]
            new = [group for group in change["new"] if group in GROUPS]
            for group in (*gone, *new):
                members = [cpu.get(member) for member in GROUPS[group]]
                assert cpu.get(group) is all(members), (case, group)
