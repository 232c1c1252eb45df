"""A CPU in the words people use: a named model, and what to add to it and drop from it."""

from __future__ import annotations

from dataclasses import dataclass

from cpufw.core.algebra import Operand, Relation
from cpufw.core.features import FeatureSet
from cpufw.core.model import CPUModel
from cpufw.core.model_algebra import ModelAlgebra
from cpufw.errors import ModelError, PropertyError

_NO_MORE = (Relation.IDENTICAL, Relation.SUBSET)  # asks nothing of a host that the other does not


@dataclass(frozen=True)
class NamedModel:
    """`name` with `adds` turned on and `drops` turned off.

    What comes along with an added feature (those of VMX with `vmx`) is not among `adds`.
    """

    name: str
    adds: FeatureSet
    drops: FeatureSet

    def __str__(self) -> str:
        """As a `--cpu` string."""
        return ",".join([self.name, *(f"+{f}" for f in self.adds), *(f"-{f}" for f in self.drops)])


def closest(algebra: ModelAlgebra, wanted: Operand) -> NamedModel | None:
    """The named model that has to change least in its features to be `wanted`.

    Of models whose identity asks nothing of a host that `wanted` does not; of equally near ones
    the last defined. None if there is none.
    """
    candidates = [
        (model, operand)
        for model, operand in reversed(algebra.named)
        if algebra.rules.compare_identity(operand.identity, wanted.identity)[0] in _NO_MORE
    ]
    candidates.sort(key=lambda candidate: _distance(candidate[1], wanted))
    for model, operand in candidates:
        try:
            return _changed(algebra, model, operand, wanted)
        except (ModelError, PropertyError):  # too old for what it would have to add
            continue
    return None


def _changed(
    algebra: ModelAlgebra, model: CPUModel, operand: Operand, wanted: Operand
) -> NamedModel:
    nothing = wanted.features.table.empty
    adds = wanted.features - operand.features
    company = wanted.features.table.set(name for name in model.companions if name in adds)
    brought = algebra.operand(str(NamedModel(model.name, company, nothing))).features
    adds = company | wanted.features - brought
    grown = algebra.operand(str(NamedModel(model.name, adds, nothing))).features
    return NamedModel(model.name, adds, grown - wanted.features)


def _distance(a: Operand, b: Operand) -> int:
    return len(a.features ^ b.features)
