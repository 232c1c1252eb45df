"""Generations and their GA levels: the order in which CPUs and features came."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from cpufw.core.features import Feature, FeatureSet, FeatureTable


class Level(NamedTuple):
    """A generation (14 for z14) and the GA level in it; later levels are greater."""

    generation: int
    ga: int

    def __str__(self) -> str:
        return f"generation {self.generation} GA{self.ga}"


def level_of(identity: Mapping[str, Any]) -> Level:
    """The level that a CPU's identity says."""
    return Level(identity["generation"], identity["ga"])


def introduced(feature: Feature) -> Level | None:
    """The level with which `feature` came; None if no CPU can have it yet."""
    if not feature.since:
        return None
    generation, _, ga = feature.since.partition(".")
    return Level(int(generation), int(ga))


@lru_cache(maxsize=64)  # there are some twenty levels
def allowed(table: FeatureTable, level: Level) -> FeatureSet:
    """The features that a CPU of `level` can have: those that came with it or before."""
    return table.set(
        feature.name
        for feature in table
        if (since := introduced(feature)) is not None and since <= level
    )
