"""CPUs to write and read: every named model, with features turned on and off at random."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from cpufw.core.cpu import CPUState
from cpufw.core.features import FeatureSet
from cpufw.core.model import Expansion
from cpufw.errors import ModelError
from cpufw.formats.choice import Formats
from cpufw.formats.format import Codec, Exported, Format, Imported
from cpufw.formats.requests import request_text
from cpufw.framework import Framework

ARCH = "x86_64"
GOLDEN = Path(__file__).parent / "golden"


@cache
def framework() -> Framework:
    return Framework(user=False)


@cache
def formats() -> Formats:
    found = framework().plugins.collect("cpufw_formats", Format)
    return Formats([each for _, each in found])


def codec(name: str) -> Codec:
    return formats().codec(name, ARCH)


def cpu(text: str) -> CPUState:
    return framework().cpu(text, ARCH)


def expansion(text: str) -> Expansion:
    return cpu(text).expand()


def write(name: str, text: str) -> Exported:
    return codec(name).write(cpu(text), framework())


def read(name: str, text: str) -> Imported:
    return codec(name).read(text, framework())


def cpu_text(imported: Imported) -> str:
    return request_text(imported.request)


def again(name: str, text: str) -> tuple[Exported, Expansion]:
    """A CPU written, and what comes of reading that."""
    exported = write(name, text)
    return exported, expansion(cpu_text(read(name, exported.text)))


def table() -> Any:
    return framework().catalogue(ARCH).table


def named() -> list[str]:
    return [each.name for each in framework().catalogue(ARCH) if not each.dynamic]


def lost_names(exported: Exported) -> list[str]:
    return [each.partition("=")[0] for each in exported.lost]


def lost_features(exported: Exported) -> FeatureSet:
    found: FeatureSet = table().set(name for name in lost_names(exported) if name in table())
    return found


@cache
def _choices() -> tuple[list[str], list[str]]:
    return [each.name for each in table()], [name for name in named() if name != "base"]


@st.composite
def cpu_texts(draw: st.DrawFn) -> str:
    """`Haswell,+pcid,-avx`: a real model with up to six features switched, that can be."""
    features, models = _choices()
    model = draw(st.sampled_from(models))
    switched = draw(st.dictionaries(st.sampled_from(features), st.booleans(), max_size=6))
    text = model + "".join(f",{'+' if on else '-'}{name}" for name, on in switched.items())
    try:
        expansion(text)
    except ModelError:
        assume(False)
    return text


def assert_golden(name: str, text: str) -> None:
    """`text` is what the golden file holds, which was made by the same call and read through."""
    assert text == (GOLDEN / name).read_text(encoding="utf-8")
