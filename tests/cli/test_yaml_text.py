"""What commands print as YAML reads back as it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from cpufw.cli.yaml_text import Hexadecimal, yaml_text

TEXTS = st.text(max_size=12) | st.sampled_from(
    ["on", "No", "null", "~", "1e3", "0x10", "a: b", "a #b", "a,b", "x]", "- a", "a:", "'", '"q"']
)
SCALARS = st.none() | st.booleans() | st.integers() | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def read(text: str) -> Any:
    return YAML(typ="safe").load(text)


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4))
def test_it_reads_back_as_it_was(data: dict[str, Any]) -> None:
    assert read(yaml_text(data)) == data


@pytest.mark.parametrize("count", [0, 1, 40])
def test_long_lists_are_wrapped(count: int) -> None:
    data = {"a": {"names": [f"feature-{number}" for number in range(count)]}}
    text = yaml_text(data)
    assert read(text) == data
    assert max(map(len, text.splitlines())) <= 100


def test_it_is_written_for_people() -> None:
    data = {
        "name": "Haswell",
        "description": "A CPU (2013), with TSX; it's plain",
        "level": Hexadecimal(13),
        "features": ["fpu", "sse4.1"],
        "caches": [{"level": 1, "type": "data"}],
        "registers": {"MIDR": Hexadecimal(0x411)},
        "off": "on",
    }
    assert yaml_text(data).splitlines() == [
        "name: Haswell",
        "description: A CPU (2013), with TSX; it's plain",
        "level: 0xd",
        "features: [fpu, sse4.1]",
        "caches:",
        "  - {level: 1, type: data}",
        "registers:",
        "  MIDR: 0x411",
        '"off": "on"',
    ]
