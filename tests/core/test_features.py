"""Feature sets: the algebra of sets, and dependencies."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpufw.core.features import Feature, FeatureSet, FeatureTable
from cpufw.errors import ModelError, NotFoundError

SIZE = 12


@st.composite
def tables(draw: st.DrawFn) -> FeatureTable:
    """Tables whose features require only earlier ones, in a shuffled order: no circles."""
    names = [f"f{i}" for i in range(SIZE)]
    features = [
        Feature(
            name,
            (f"w:{i}",),
            requires=tuple(draw(st.lists(st.sampled_from(names[:i]), max_size=3, unique=True)))
            if i
            else (),
        )
        for i, name in enumerate(names)
    ]
    return FeatureTable("any", draw(st.permutations(features)))


@st.composite
def table_and_sets(draw: st.DrawFn, count: int) -> tuple[FeatureTable, list[set[str]]]:
    table = draw(tables())
    names = st.sets(st.sampled_from([feature.name for feature in table]))
    return table, [draw(names) for _ in range(count)]


def closure(table: FeatureTable, names: set[str]) -> set[str]:
    """By definition: add what is required until nothing is missing."""
    while True:
        more = names | {needed for name in names for needed in table[name].requires}
        if more == names:
            return names
        names = more


@settings(max_examples=40)
@given(table_and_sets(2))
def test_the_algebra_is_that_of_python_s_sets(drawn: tuple[FeatureTable, list[set[str]]]) -> None:
    table, (one, two) = drawn
    left, right = table.set(one), table.set(two)
    makers: list[Callable[[Any, Any], Any]] = [
        operator.or_,
        operator.and_,
        operator.sub,
        operator.xor,
    ]
    for make in makers:
        assert set(make(left, right)) == make(one, two)
    for compare in (operator.le, operator.lt, operator.ge, operator.gt, operator.eq, operator.ne):
        assert compare(left, right) == compare(one, two)
    assert len(left) == len(one)
    assert bool(left) == bool(one)
    assert all((name in left) == (name in one) for name in [*one, *two, "nothing"])
    if one == two:
        assert hash(left) == hash(right)


@settings(max_examples=40)
@given(table_and_sets(1))
def test_names_come_in_the_table_s_order(drawn: tuple[FeatureTable, list[set[str]]]) -> None:
    table, (names,) = drawn
    assert list(table.set(names)) == [f.name for f in table if f.name in names]


@settings(max_examples=40)
@given(table_and_sets(1))
def test_with_requirements_is_the_smallest_closed_set(
    drawn: tuple[FeatureTable, list[set[str]]],
) -> None:
    table, (names,) = drawn
    whole = table.set(names).with_requirements()
    assert set(whole) == closure(table, names)
    assert whole.with_requirements() == whole
    assert not whole.unmet()


@settings(max_examples=40)
@given(table_and_sets(1))
def test_unmet_names_exactly_what_is_missing(drawn: tuple[FeatureTable, list[set[str]]]) -> None:
    table, (names,) = drawn
    expected = {
        name: closure(table, {name}) - names for name in names if closure(table, {name}) - names
    }
    assert {name: set(missing) for name, missing in table.set(names).unmet().items()} == expected


@settings(max_examples=40)
@given(table_and_sets(2))
def test_without_leaves_a_closed_set_closed_and_takes_no_more_than_it_must(
    drawn: tuple[FeatureTable, list[set[str]]],
) -> None:
    table, (names, gone) = drawn
    whole = table.set(names).with_requirements()
    left = whole.without(table.set(gone))
    assert left <= whole
    assert not left & table.set(gone)
    assert not left.unmet()
    # What went requires one of those that were to go.
    assert all(closure(table, {name}) & gone for name in whole - left)


def test_an_alias_is_the_feature_itself() -> None:
    table = FeatureTable(
        "any",
        [
            Feature("sse4.1", ("w:0",), aliases={"qemu": ("sse4-1",), "linux": ("sse4_1",)}),
            Feature("avx", ("w:1",), requires=("sse4.1",)),
        ],
    )
    assert table.set(["sse4-1"]) == table.set(["sse4.1"])
    assert table["sse4-1"].name == "sse4.1"
    assert "sse4-1" in table.set(["sse4.1"])
    assert repr(table.set(["sse4-1"])) == "FeatureSet(any: sse4.1)"
    assert "sse4_1" not in table  # Linux's name is not one that users may write


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    table = FeatureTable("any", [Feature("pcid", ("w:0",)), Feature("invpcid", ("w:1",))])
    with pytest.raises(NotFoundError, match="any feature 'pcdi' is not known; did you mean pcid"):
        table.set(["pcid", "pcdi"])


def test_requiring_one_another_in_a_circle_is_refused_by_name() -> None:
    table = FeatureTable(
        "any",
        [
            Feature("a", ("w:0",), requires=("b",)),
            Feature("b", ("w:1",), requires=("c",)),
            Feature("c", ("w:2",), requires=("a",)),
        ],
    )
    with pytest.raises(ModelError, match="circle: a -> b -> c -> a"):
        table.set(["a"]).with_requirements()


def test_architectures_do_not_mix() -> None:
    one, two = (FeatureTable(name, [Feature("a", ("w:0",))]) for name in ("x", "y"))
    with pytest.raises(ModelError, match="features of x and y cannot be combined"):
        _ = one.set(["a"]) | two.set(["a"])
    assert one.set(["a"]) != two.set(["a"])


def test_a_set_cannot_be_changed() -> None:
    table = FeatureTable("any", [Feature("a", ("w:0",)), Feature("b", ("w:1",), migratable=False)])
    before = whole = table.set(["a"])
    whole |= table.set(["b"])
    assert set(before) == {"a"}
    assert table.unmigratable == table.set(["b"])
    assert FeatureSet(table, 0) == table.empty
