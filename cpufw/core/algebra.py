"""How CPU models stand to one another: compare, baseline, explain."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Relation(enum.Enum):
    """How one CPU stands to another, in QMP's words (`CpuModelCompareResult`)."""

    IDENTICAL = "identical"
    SUPERSET = "superset"
    SUBSET = "subset"
    INCOMPATIBLE = "incompatible"


class ModelRules(Protocol):
    """What an architecture knows about the identities of its CPUs; feature sets need no rules.

    An identity is `Expansion.identity`: every value of a model that is not a feature.
    """

    def compare_identity(
        self, a: Mapping[str, Any], b: Mapping[str, Any]
    ) -> tuple[Relation, tuple[str, ...]]:
        """How `a` stands to `b`, and the names of the values responsible for any difference."""

    def common_identity(self, identities: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The identity of the richest CPU that can run wherever each of these can.

        Raises `ModelError` naming the values that contradict.
        """
