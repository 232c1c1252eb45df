"""A CPU in the words people use: a named model, and what to add to it and drop from it."""

from __future__ import annotations

from dataclasses import dataclass

from cpufw.core.algebra import Operand, Relation
from cpufw.core.features import FeatureSet
from cpufw.core.model import CPUModel
from cpufw.core.model_algebra import ModelAlgebra


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
    nearest: tuple[CPUModel, Operand] | None = None
    for model, operand in algebra.named:
        relation, _ = algebra.rules.compare_identity(operand.identity, wanted.identity)
        if relation not in (Relation.IDENTICAL, Relation.SUBSET):
            continue
        if nearest is None or _distance(operand, wanted) <= _distance(nearest[1], wanted):
            nearest = model, operand
    if nearest is None:
        return None
    model, operand = nearest
    nothing = wanted.features.table.empty
    adds = wanted.features - operand.features
    company = wanted.features.table.set(name for name in model.companions if name in adds)
    brought = algebra.operand(str(NamedModel(model.name, company, nothing))).features
    adds = company | wanted.features - brought
    grown = algebra.operand(str(NamedModel(model.name, adds, nothing))).features
    return NamedModel(model.name, adds, grown - wanted.features)


def _distance(a: Operand, b: Operand) -> int:
    return len(a.features ^ b.features)
