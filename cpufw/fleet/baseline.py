"""The richest CPU that every one of many hosts or models can run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cpufw.core.algebra import Operand, common
from cpufw.core.model_algebra import ExpandedModel, ModelAlgebra
from cpufw.errors import ModelError
from cpufw.fleet.named import NamedModel, closest


@dataclass(frozen=True)
class Baseline:
    """What all have in common, less what cannot migrate.

    `static` is that CPU as a static model with explicit properties, None where the architecture
    has no static models; `named` is as near as a named model comes to it, with what it adds and
    drops, None where no model of that identity is known.
    """

    cpu: Operand
    static: ExpandedModel | None
    named: NamedModel | None


def baseline(algebra: ModelAlgebra, operands: Iterable[Operand]) -> Baseline:
    """The greatest CPU that is a subset of each of `operands`, which are taken one by one.

    The cost is linear in their number, and none of them is kept. Raises `ModelError` if there are
    none or they contradict one another.
    """
    cpu = common(operands, algebra.rules)
    try:
        static = algebra.static(cpu)
    except ModelError:
        static = None
    return Baseline(cpu, static, closest(algebra, cpu))
