"""Models: versions, aliases, requests, expansion."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.core.features import FeatureSet
from cpufw.core.model import AliasRule, expand, parse_cpu
from cpufw.errors import ModelError, NotFoundError, UsageError

from .lab import CATALOGUE, TABLE, model

SETS = st.sets(st.sampled_from([feature.name for feature in TABLE])).map(TABLE.set)


def test_a_name_means_version_1_or_the_newest_as_the_machine_type_says() -> None:
    first = CATALOGUE.resolve("one", AliasRule.FIRST)
    newest = CATALOGUE.resolve("one", AliasRule.NEWEST)
    assert set(first.features) == {"base", "wide"}
    assert set(newest.features) == {"base", "wide", "wider"}
    assert (first.name, newest.name) == ("one", "one")
    assert newest.alias_of == "one-v2"


@pytest.mark.parametrize("rule", AliasRule)
@pytest.mark.parametrize("name", ["one-v1", "one-v2", "two"])
def test_a_version_never_changes(name: str, rule: AliasRule) -> None:
    assert CATALOGUE.resolve(name, rule) == CATALOGUE[name]


@pytest.mark.parametrize("rule", AliasRule)
def test_an_alias_is_its_version_by_name_or_at_least_in_content(rule: AliasRule) -> None:
    found = CATALOGUE.resolve("one-fast", rule)
    assert found.features == CATALOGUE["one-v2"].features
    assert found.alias_of == (None if rule is AliasRule.NONE else "one-v2")


def test_without_an_alias_rule_a_name_is_a_model_of_its_own() -> None:
    found = CATALOGUE.resolve("one", AliasRule.NONE)
    assert (found.alias_of, found.version) == (None, None)
    assert found.features == CATALOGUE["one-v1"].features


def test_an_alias_keeps_its_version_when_a_newer_one_appears() -> None:
    newer = model("one-v3", "base", family="one", version=3)
    catalogue = type(CATALOGUE)("lab", TABLE, [*CATALOGUE, newer])
    assert set(catalogue.resolve("one", AliasRule.NEWEST).features) == {"base"}
    assert set(catalogue.resolve("one-fast", AliasRule.NEWEST).features) == {
        "base",
        "wide",
        "wider",
    }


def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        NotFoundError, match="CPU model 'One-V22' is not known; did you mean one-v2"
    ):
        CATALOGUE.resolve("One-V22")


def test_a_request_is_taken_apart() -> None:
    request = parse_cpu("Haswell,+pcid,-avx,stepping=3,check,vendor=a=b")
    assert request.model == "Haswell"
    assert request.plus == ("pcid",)
    assert request.minus == ("avx",)
    assert request.properties == {"stepping": "3", "check": "on", "vendor": "a=b"}


def test_minus_wins_as_in_qemu() -> None:
    assert parse_cpu("x,-a,+a,a=on").settings() == {"a": False}
    assert parse_cpu("x,a=off,+a").settings() == {"a": True}


@pytest.mark.parametrize("text", ["", ",+pcid", "Haswell,", "Haswell,,+pcid"])
def test_a_malformed_request_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--cpu: "):
        parse_cpu(text)


def test_turning_a_feature_off_takes_along_what_requires_it() -> None:
    result = expand(CATALOGUE["one-v2"], TABLE.empty, TABLE.set(["wide"]), {})
    assert set(result.features) == {"base"}
    assert set(result.dropped) == {"wider"}


def test_a_feature_brings_its_companions() -> None:
    assert "nested-fast" in expand(CATALOGUE["two"], TABLE.empty, TABLE.empty, {}).features
    off = expand(CATALOGUE["two"], TABLE.empty, TABLE.set(["nested"]), {}).features
    assert set(off) == {"base"}


@pytest.mark.parametrize(
    ("plus", "minus", "says"),
    [
        (
            "wider",
            "",
            "empty: +wider requires base, wide, which this model does not have; add +base",
        ),
        ("wider wide", "base", "requires base, which was turned off"),
    ],
)
def test_a_feature_without_what_it_requires_is_refused(plus: str, minus: str, says: str) -> None:
    with pytest.raises(ModelError, match=re.escape(says)):
        expand(CATALOGUE["empty"], TABLE.set(plus.split()), TABLE.set(minus.split()), {})


@given(st.sampled_from(list(CATALOGUE)), SETS, SETS, SETS, SETS)
def test_an_expansion_is_closed_and_does_as_told(
    which: object, plus: FeatureSet, minus: FeatureSet, on: FeatureSet, off: FeatureSet
) -> None:
    chosen = CATALOGUE[which.name]  # type: ignore[attr-defined]
    try:
        result = expand(chosen, plus, minus, {"speed": 3}, on, off)
    except ModelError as error:
        name = re.search(r"\+(\S+) requires", str(error))
        assert name is not None
        assert name[1] in plus
        return
    assert not result.features.unmet()
    assert not result.features & minus
    assert plus - minus <= result.features
    assert not result.dropped & result.features
    assert result.identity["speed"] == 3
    again = expand(model("again", " ".join(result.features)), TABLE.empty, TABLE.empty, {})
    assert again.features == result.features


def test_what_the_user_says_comes_after_the_accelerator_s_defaults() -> None:
    one = CATALOGUE["one"]
    result = expand(one, TABLE.set(["wide"]), TABLE.set(["clock"]), {}, TABLE.set(["clock"]),
                    TABLE.set(["wide"]))  # fmt: skip
    assert set(result.features) == {"base", "wide"}
