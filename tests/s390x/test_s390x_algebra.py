"""Comparison and baseline of every pair of models, as QEMU 10.0.2 answers them."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from s390x_reference import ANSWERS

from cpufw.core.algebra import Operand, common, compare
from cpufw.core.model import CPUModel
from cpufw.core.model_algebra import ExpandedModel
from cpufw.errors import ModelError
from cpufw.framework import Framework
from cpufw_s390x.rules import S390xRules


def baseline(cpus: Sequence[Operand], models: Iterable[CPUModel]) -> ExpandedModel:
    rules = S390xRules()
    return rules.static(common(cpus, rules), models)


@pytest.fixture(scope="module")
def operands(framework: Framework) -> dict[str, Operand]:
    algebra = framework.algebra("s390x")
    return {model.name: algebra.operand(model.name) for model in algebra.catalogue}


def test_comparison_of_every_pair(operands: dict[str, Operand]) -> None:
    rules = S390xRules()
    for pair, answer in ANSWERS["comparison"].items():
        a, b = pair.split("|")
        found = compare(operands[a], operands[b], rules)
        assert found.relation.value == answer["result"], pair
        assert sorted(found.responsible) == sorted(answer["responsible-properties"]), pair


def test_baseline_of_every_pair(framework: Framework, operands: dict[str, Operand]) -> None:
    models = framework.catalogue("s390x")
    otherwise: set[tuple[str, str]] = set()
    for pair, answer in ANSWERS["baseline"].items():
        a, b = pair.split("|")
        found: dict[str, Any] = baseline([operands[a], operands[b]], models).to_qmp()["model"]
        expected = {"props": {}, **answer["model"]}
        assert found["props"] == expected["props"], pair
        if found["name"] != expected["name"]:
            otherwise.add((found["name"], expected["name"]))
    # The same level and the same features; QEMU never finds z14ZR1-base.
    assert otherwise <= {("z14ZR1-base", "z14-base")}
    assert (
        compare(operands["z14ZR1-base"], operands["z14-base"], S390xRules()).relation.value
        == "identical"
    )


def test_baseline_of_several_can_run_on_each(
    framework: Framework, operands: dict[str, Operand]
) -> None:
    algebra = framework.algebra("s390x")
    names = ["gen16a", "z14ZR1", "z13.2", "gen17b"]
    found = algebra.operand(baseline([operands[name] for name in names], algebra.catalogue))
    for name in names:
        relation = compare(operands[name], found, S390xRules()).relation.value
        assert relation in ("superset", "identical"), name


def test_no_model_is_small_enough(framework: Framework) -> None:
    algebra = framework.algebra("s390x")
    nothing = algebra.operand("z14,zarch=off")
    with pytest.raises(ModelError, match="no s390x model is that small"):
        baseline([nothing], algebra.catalogue)
