"""Feature words: each feature at its bit, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.core.features import Feature, FeatureTable
from cpufw.errors import DefinitionError
from cpufw.framework import Framework
from cpufw_x86.words import FeatureWords, feature_words

TABLE = FeatureTable(
    "any",
    [
        Feature("one", ("1.EDX:0",)),
        Feature("two", ("1.EDX:31",)),
        Feature("far", ("MSR.10A:63",)),
        Feature("twice", ("7.1.EAX:4", "7.1.EBX:9")),
    ],
)


def test_a_feature_stands_at_each_of_its_places() -> None:
    words = FeatureWords(TABLE)
    assert words.encode(TABLE.set(["one", "two"])) == {"1.EDX": 0x8000_0001}
    assert words.encode(TABLE.set(["far"])) == {"MSR.10A": 1 << 63}
    assert words.encode(TABLE.set(["twice"])) == {"7.1.EAX": 1 << 4, "7.1.EBX": 1 << 9}
    assert words.encode(TABLE.empty) == {}


def test_bits_that_no_feature_owns_are_ignored() -> None:
    words = FeatureWords(TABLE)
    assert words.decode({"1.EDX": 0xFFFF_FFFF, "9.EAX": 0xFF}) == TABLE.set(["one", "two"])
    assert words.decode({}) == TABLE.empty


@given(st.data())
def test_every_set_of_the_real_features_survives_the_words(
    framework: Framework, data: st.DataObject
) -> None:
    table = framework.catalogue("x86_64").table
    names = [feature.name for feature in table]
    chosen = table.set(data.draw(st.sets(st.sampled_from(names))))
    words = feature_words(table)
    encoded = words.encode(chosen)
    assert words.decode(encoded) == chosen
    owned = sum(len(table[name].places) for name in chosen)
    assert sum(value.bit_count() for value in encoded.values()) == owned  # no bit is shared
    assert all(
        value < 1 << (64 if word.startswith("MSR.") else 32) for word, value in encoded.items()
    )


def test_the_words_of_a_table_are_made_once() -> None:
    assert feature_words(TABLE) is feature_words(TABLE)


@pytest.mark.parametrize("place", ["", "1.EDX", ":5", "1.EDX:", "1.EDX:x", "1.EDX:64", "1.EDX:-1"])
def test_a_place_that_makes_no_sense_is_refused(place: str) -> None:
    table = FeatureTable("any", [Feature("odd", (place,))])
    with pytest.raises(DefinitionError, match=r"feature odd: .* is not a place like 7\.0\.EBX:5"):
        FeatureWords(table)
