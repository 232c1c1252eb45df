"""Groups of features: one name for all members, wherever features are named."""

from __future__ import annotations

import pytest

from cpufw.core.features import Feature, FeatureTable
from cpufw.errors import NotFoundError

TABLE = FeatureTable(
    "lab",
    [
        Feature("hash", ("ID:0",), groups=("crypto",)),
        Feature("cipher", ("ID:1",), requires=("hash",), groups=("crypto", "fast")),
        Feature("jump", ("ID:2",), groups=("fast",), deprecated=True),
        Feature("alone", ("ID:3",)),
    ],
)


def test_a_group_stands_for_its_members() -> None:
    assert list(TABLE.set(["crypto", "alone"])) == ["hash", "cipher", "alone"]
    assert {name: list(members) for name, members in TABLE.groups.items()} == {
        "crypto": ["hash", "cipher"],
        "fast": ["cipher", "jump"],
    }
    assert "crypto" in TABLE


def test_a_group_is_in_a_set_that_has_all_of_it() -> None:
    assert "crypto" in TABLE.set(["hash", "cipher"])
    assert "crypto" not in TABLE.set(["hash", "jump"])


def test_a_group_is_no_feature() -> None:
    with pytest.raises(NotFoundError, match="lab feature 'crypto' is not known"):
        TABLE["crypto"]
    assert [feature.name for feature in TABLE] == ["hash", "cipher", "jump", "alone"]


def test_a_set_is_named_by_whole_groups_and_the_rest() -> None:
    assert TABLE.set(["hash", "cipher", "alone"]).grouped() == ("crypto", "alone")
    assert TABLE.set(["hash", "jump"]).grouped() == ("hash", "jump")
    assert TABLE.empty.grouped() == ()


def test_deprecated_features_are_known() -> None:
    assert list(TABLE.deprecated) == ["jump"]
