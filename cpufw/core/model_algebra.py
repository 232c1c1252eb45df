"""The models of one architecture as operands: expanded, compared, looked through."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from cpufw.core.algebra import (
    Comparison,
    EqualIdentities,
    ModelRules,
    NormalizingRules,
    Operand,
    Relation,
    compare,
)
from cpufw.core.cpu import CPUState, build_cpu_class
from cpufw.core.model import Catalogue, CPUModel
from cpufw.errors import ModelError

if TYPE_CHECKING:
    from cpufw.core.accel import Accelerator
    from cpufw.core.arch import Architecture
    from cpufw.core.machine import Machine


class ExpansionType(enum.Enum):
    """How far a model is written out, in QMP's words (`CpuModelExpansionType`)."""

    STATIC = "static"
    FULL = "full"


@dataclass(frozen=True)
class ExpandedModel:
    """A model's name and properties, as QMP has them in `CpuModelInfo`."""

    name: str
    props: Mapping[str, Any] = field(default_factory=dict)

    def to_qmp(self) -> dict[str, Any]:
        """`{"model": {"name": …, "props": …}}`, QMP's `CpuModelExpansionInfo`."""
        return {"model": {"name": self.name, "props": dict(self.props)}}


@runtime_checkable
class ExpandingRules(ModelRules, Protocol):
    """The rules of an architecture that writes its models out in its own way."""

    def static(self, cpu: Operand, models: Iterable[CPUModel]) -> ExpandedModel:
        """`cpu` as one of the static `models` and properties. Raises `ModelError`."""

    def full(self, cpu: Operand) -> ExpandedModel:
        """`cpu` with every property."""


ModelLike = str | ExpandedModel | CPUState
"""A model as callers name it: a `--cpu` string, an expansion, or a CPU that is not realized."""


class ModelAlgebra:
    """expand, compare and what else asks about the models of one architecture.

    `make` turns a `--cpu` string into a CPU of this architecture.
    """

    def __init__(
        self, architecture: Architecture, catalogue: Catalogue, make: Callable[[str], CPUState]
    ) -> None:
        self.architecture, self.catalogue, self._make = architecture, catalogue, make
        rules = architecture.rules
        self.rules: ModelRules = rules() if rules is not None else EqualIdentities()

    # --- operands -------------------------------------------------------------------------

    def cpu(self, what: ModelLike) -> CPUState:
        """The CPU, not realized. Raises `NotFoundError`, `ModelError` or `PropertyError`."""
        if isinstance(what, str):
            return self._make(what)
        if isinstance(what, CPUState):
            return what
        cpu = self._make(what.name)
        model = cpu.model
        # Some values belong to models and cannot be set: the caches of an x86 CPU.
        bare = {
            name: value
            for name, value in what.props.items()
            if name in self._model_values and name not in type(cpu).properties
        }
        if any(model.identity.get(name) != value for name, value in bare.items()):
            model = replace(model, identity={**model.identity, **bare})
            cpu = build_cpu_class(model, self.architecture, cpu.type_name)()
        for name, value in what.props.items():
            members = model.table.groups.get(name, (name,))
            for each in () if name in bare else members:
                if cpu.get(each) != value:
                    cpu.set(each, value)
        return cpu

    @cached_property
    def _model_values(self) -> frozenset[str]:
        return frozenset(name for model in self.catalogue for name in model.identity)

    def operand(self, what: ModelLike, machine: Machine | None = None) -> Operand:
        """The CPU to compare. `host` and `max` need a `machine`. Raises as `cpu` does."""
        cpu = self.cpu(what)
        expansion = cpu.expand(machine)
        name = what if isinstance(what, str) else cpu.model.name
        return Operand(name, expansion.features, self._telling(cpu, expansion.identity))

    def _telling(self, cpu: CPUState, identity: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values of `identity` that are not what every CPU here has by default."""
        specs = cpu.extra_properties
        return {
            name: value
            for name, value in self._normal(identity).items()
            if name not in specs or value != specs[name].default
        }

    def _normal(self, identity: Mapping[str, Any]) -> Mapping[str, Any]:
        rules = self.rules
        return rules.normal_identity(identity) if isinstance(rules, NormalizingRules) else identity

    def host(self, accelerator: Accelerator) -> Operand:
        """What a host can give a guest: an opened accelerator, or a capture."""
        return Operand(
            accelerator.name,
            accelerator.supported_features(self.catalogue.table),
            self._normal(accelerator.host_identity()),
        )

    @cached_property
    def named(self) -> Sequence[tuple[CPUModel, Operand]]:
        """Every name that always means the same CPU, in definition order.

        Versions, and models without versions; no aliases, nothing static or dynamic.
        """
        return [
            (model, self.operand(model.name))
            for model in self.catalogue
            if model.alias_of is None and not model.dynamic and not model.static
        ]

    # --- the commands ---------------------------------------------------------------------

    def compare(self, a: ModelLike | Operand, b: ModelLike | Operand) -> Comparison:
        """How `a` stands to `b`. Raises what naming them raises."""
        a, b = (each if isinstance(each, Operand) else self.operand(each) for each in (a, b))
        return compare(a, b, self.rules)

    def expand(
        self,
        what: ModelLike,
        kind: ExpansionType | str = ExpansionType.STATIC,
        machine: Machine | None = None,
    ) -> ExpandedModel:
        """The model written out.

        `static`: one that never changes, and explicit properties; raises `ModelError` where the
        architecture has no static models. `full`: the same name with every property that makes a
        difference to a guest. Expanding the result again gives the same.
        """
        cpu = self.cpu(what)
        operand = self.operand(cpu, machine)
        if ExpansionType(kind) is ExpansionType.STATIC:
            return self.static(operand)
        if isinstance(self.rules, ExpandingRules):
            return self.rules.full(operand._replace(name=cpu.model.name))
        values = {name: cpu.get(name) for name in cpu.extra_properties} | dict(operand.identity)
        features = {each.name: each.name in operand.features for each in self.catalogue.table}
        return ExpandedModel(cpu.model.name, values | features)

    def static(self, operand: Operand) -> ExpandedModel:
        """`operand` as a static model and what differs from it. Raises `ModelError`."""
        if isinstance(self.rules, ExpandingRules):
            return self.rules.static(operand, self.catalogue.static)
        base = self._static_base(operand)
        if base is None:
            raise ModelError(
                f"{operand.name} has no static expansion: {self.architecture.name} has no static "
                "model to start from; ask for the full one"
            )
        cpu = self._make(base.name)
        ours, its = operand.identity, self._telling(cpu, base.identity)
        props = {name: value for name, value in ours.items() if its.get(name) != value}
        specs = cpu.extra_properties
        props |= {name: specs[name].default for name in its.keys() - ours.keys() if name in specs}
        for differing, on in (
            (operand.features - base.features, True),
            (base.features - operand.features, False),
        ):
            props |= dict.fromkeys(differing.grouped(), on)
        return ExpandedModel(base.name, props)

    def _static_base(self, operand: Operand) -> CPUModel | None:
        """The static model nearest to `operand`: the same identity, else the greatest below it."""

        def ask(a: Mapping[str, Any], b: Mapping[str, Any]) -> Relation:
            return self.rules.compare_identity(a, b)[0]

        def distance(model: CPUModel) -> int:
            return len(model.features ^ operand.features)

        nearest: CPUModel | None = None
        for model in self.catalogue.static:
            if model.alias_of is not None:
                continue
            if ask(model.identity, operand.identity) not in (Relation.IDENTICAL, Relation.SUBSET):
                continue
            relation = ask(model.identity, nearest.identity) if nearest else Relation.SUPERSET
            if relation is Relation.SUPERSET or (
                relation is not Relation.SUBSET
                and nearest is not None
                and distance(model) < distance(nearest)
            ):
                nearest = model
        return nearest
