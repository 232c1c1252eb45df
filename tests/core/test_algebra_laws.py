"""The laws of the algebra, on the real models of every architecture that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import cache
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from cpufw.core.algebra import Operand, Relation, common, runnable
from cpufw.core.arch import Architecture
from cpufw.core.features import FeatureSet
from cpufw.core.model_algebra import ModelAlgebra
from cpufw.errors import ModelError
from cpufw.framework import Framework
from cpufw.plugins import PluginSet

ARCHS = [each.name for _, each in PluginSet().collect("cpufw_architectures", Architecture)]
BELOW = (Relation.SUBSET, Relation.IDENTICAL)


@cache
def known() -> Framework:
    return Framework()


@cache
def real_cpus(arch: str) -> tuple[ModelAlgebra, tuple[Operand, ...]]:
    """Every model of `arch` that does not depend on a host."""
    algebra = known().algebra(arch)
    names = [model.name for model in algebra.catalogue if not model.dynamic]
    return algebra, tuple(algebra.operand(name) for name in names)


@pytest.fixture(scope="module", params=ARCHS)
def arch(request: pytest.FixtureRequest, framework: Framework) -> str:
    name: str = request.param
    if name not in framework.architectures:
        pytest.skip(f"the plugin of {name} is out of use")
    return name


def some_cpu(arch: str, draw: st.DrawFn) -> Operand:
    """A real model with a few features more and a few less, and maybe another's identity."""
    _, cpus = real_cpus(arch)
    start, other = draw(st.sampled_from(cpus)), draw(st.sampled_from(cpus))
    table = start.features.table
    toggles = draw(st.lists(st.sampled_from([each.name for each in table]), max_size=4))
    features = runnable(start.features ^ table.set(toggles))
    return Operand("some", features, draw(st.sampled_from([start, other])).identity)


def weaker(cpu: Operand, draw: st.DrawFn) -> Operand:
    """A CPU with some of the features of `cpu`, and maybe another identity."""
    kept = draw(st.integers(min_value=0)) | draw(st.sampled_from([0, -1]))
    features = FeatureSet(cpu.features.table, cpu.features.mask & kept)
    return Operand("weaker", features, draw(st.sampled_from([cpu, some_cpu_like(cpu)])).identity)


def some_cpu_like(cpu: Operand) -> Operand:
    """The model that has nearly the identity of `cpu`."""
    _, cpus = real_cpus(cpu.features.table.arch)
    return min(cpus, key=lambda each: _differences(each.identity, cpu.identity) or 99)


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> int:
    return sum(a.get(name) != b.get(name) for name in {*a, *b})


@settings(max_examples=40)
@given(st.data())
def test_seen_from_the_other_side_the_verdict_is_its_mirror(arch: str, data: st.DataObject) -> None:
    algebra, _ = real_cpus(arch)
    a, b = (data.draw(st.composite(lambda draw: some_cpu(arch, draw))()) for _ in "ab")
    there, back = algebra.compare(a, b), algebra.compare(b, a)
    assert there.relation is back.relation.mirror
    assert set(there.responsible) == set(back.responsible)
    assert (there.relation is Relation.IDENTICAL) == (not there.responsible)


@settings(max_examples=40)
@given(st.data())
def test_a_subset_of_a_subset_is_a_subset(arch: str, data: st.DataObject) -> None:
    algebra, _ = real_cpus(arch)

    @st.composite
    def chain(draw: st.DrawFn) -> tuple[Operand, Operand, Operand]:
        a = some_cpu(arch, draw)
        b = weaker(a, draw)
        return a, b, weaker(b, draw)

    a, b, c = data.draw(chain())
    if algebra.compare(b, a).relation in BELOW and algebra.compare(c, b).relation in BELOW:
        assert algebra.compare(c, a).relation in BELOW


@settings(max_examples=40)
@given(st.data())
def test_a_baseline_is_the_greatest_subset_of_every_input(arch: str, data: st.DataObject) -> None:
    algebra, _ = real_cpus(arch)
    one = st.composite(lambda draw: some_cpu(arch, draw))()
    inputs = data.draw(st.lists(one, min_size=1, max_size=5))
    identities = [each.identity for each in inputs]
    verdicts = {algebra.rules.compare_identity(a, b)[0] for a in identities for b in identities}
    with suppress(ModelError) if Relation.INCOMPATIBLE in verdicts else nullcontext():
        check_baseline(algebra, inputs)


def check_baseline(algebra: ModelAlgebra, inputs: list[Operand]) -> None:
    found = common(inputs, algebra.rules)
    for each in inputs:
        assert algebra.compare(found, each).relation in BELOW
    assert not found.features.unmet()
    assert not found.features & found.features.table.unmigratable
    shared = inputs[0].features - found.features.table.unmigratable
    for each in inputs:
        shared &= each.features
    for name in shared - found.features:
        needed = found.features.table.set([name]).with_requirements()
        assert not needed <= shared, f"{name} could be in the baseline"
    backwards = common(reversed(inputs), algebra.rules)
    assert (backwards.features, backwards.identity) == (found.features, found.identity)


def test_identical_are_exactly_those_that_expand_alike(arch: str) -> None:
    algebra, cpus = real_cpus(arch)
    full = {cpu.name: algebra.expand(cpu.name, "full").props for cpu in cpus[::5]}
    for a in cpus[::5]:
        for b in cpus[::5]:
            found = algebra.compare(a, b)
            # A value that is no property, such as the level of an s390x model, tells apart too.
            alike = full[a.name] == full[b.name] and not found.values
            assert alike == (found.relation is Relation.IDENTICAL), (a.name, b.name)


def test_models_expand_in_full_and_again(arch: str) -> None:
    algebra, cpus = real_cpus(arch)
    for cpu in cpus[::2]:
        full = algebra.expand(cpu.name, "full")
        table = algebra.catalogue.table
        named = table.set(name for name in full.props if name in table)  # groups name their members
        assert len(named) == len(table)
        assert algebra.expand(full, "full") == full
        assert algebra.compare(cpu, full).relation is Relation.IDENTICAL


def test_models_have_static_expansions_where_there_are_static_models(arch: str) -> None:
    algebra, cpus = real_cpus(arch)
    statics = {model.name for model in algebra.catalogue if model.static}
    for cpu in cpus[::2]:
        if not statics:
            with pytest.raises(ModelError, match=f"{arch} has no static model"):
                algebra.expand(cpu.name)
            continue
        static = algebra.expand(cpu.name)
        assert static.name in statics
        assert algebra.expand(static) == static
        assert algebra.compare(cpu, static).relation is Relation.IDENTICAL


@settings(max_examples=25)
@given(st.data())
def test_expanding_is_idempotent_whatever_is_set(arch: str, data: st.DataObject) -> None:
    algebra, cpus = real_cpus(arch)
    start = data.draw(st.sampled_from(cpus))
    table = start.features.table
    off = data.draw(st.lists(st.sampled_from([each.name for each in table]), max_size=5))
    text = ",".join([start.name, *(f"-{name}" for name in off)])
    static = any(model.static for model in algebra.catalogue)
    try:
        algebra.cpu(text).expand()
    except ModelError:  # an Arm CPU cannot be without some of its features
        reject()
    for kind in ("static", "full") if static else ("full",):
        once = algebra.expand(text, kind)
        assert algebra.expand(once, kind) == once
        assert algebra.compare(text, once).relation is Relation.IDENTICAL
