"""How s390x CPUs compare, by generation and GA level, and how QEMU writes them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cpufw.core.algebra import Operand, Relation
from cpufw.core.features import FeatureSet
from cpufw.core.model import CPUModel
from cpufw.core.model_algebra import ExpandedModel
from cpufw.errors import ModelError
from cpufw_s390x.levels import Level, allowed, level_of

Identity = Mapping[str, Any]

_TYPE = "type"  # what QEMU calls generation and GA level in `responsible-properties`


class S390xRules:
    """A later level runs what runs on an earlier one; machines of one level are as good."""

    def compare_identity(self, a: Identity, b: Identity) -> tuple[Relation, tuple[str, ...]]:
        """How `a` stands to `b`: by generation, then GA level; `type` where they differ."""
        ours, theirs = level_of(a), level_of(b)
        if ours == theirs:
            return Relation.IDENTICAL, ()
        return Relation.SUPERSET if ours > theirs else Relation.SUBSET, (_TYPE,)

    def common_identity(self, identities: Sequence[Identity]) -> Identity:
        """The lowest generation and in it the lowest GA level.

        With the machine type where all of that generation are of one. It has no `static-base`:
        what all share may be too little for any of theirs.
        """
        lowest = min(map(level_of, identities))
        types = {
            each.get("machine-type")
            for each in identities
            if level_of(each).generation == lowest.generation
        }
        common: dict[str, Any] = {"generation": lowest.generation, "ga": lowest.ga}
        if len(types) == 1 and None not in types:
            common["machine-type"] = types.pop()
        return common

    def static(self, cpu: Operand, models: Iterable[CPUModel]) -> ExpandedModel:
        """`cpu` as one of the static `models` and the properties that differ, groups where whole.

        Features that the static model cannot have are left out. Raises `ModelError` if no static
        model is small enough.
        """
        base = self.static_base(cpu.features, cpu.identity, models)
        features = cpu.features & allowed(base.table, level_of(base.identity))
        return ExpandedModel(base.name, _props(features - base.features, base.features - features))

    def full(self, cpu: Operand) -> ExpandedModel:
        """`cpu` with every property: groups that are all on or all off, and the other features."""
        every = cpu.features.table.set(feature.name for feature in cpu.features.table)
        return ExpandedModel(cpu.name, _props(cpu.features, every - cpu.features))

    def static_base(
        self, features: FeatureSet, identity: Identity, models: Iterable[CPUModel]
    ) -> CPUModel:
        """The static model that an expansion of a CPU with these `features` starts from.

        A model's own is in its identity (`static-base`). For what several share it is the latest
        of `models`, no later than `identity`, whose features are all in `features`, deprecated
        ones aside; of the same machine type if there is one. Raises `ModelError` if there is none.
        """
        static = sorted((model for model in models if model.static), key=_rank)
        own = identity.get("static-base")
        if own is not None:
            return next(model for model in static if model.name == own)
        level: Level = level_of(identity)
        usable = [
            model
            for model in static
            if level_of(model.identity) <= level
            and model.features - model.table.deprecated <= features
        ]
        kin = [m for m in usable if m.identity["machine-type"] == identity.get("machine-type")]
        if not usable:
            raise ModelError("no s390x model is that small: every one has esan3, zarch and plo")
        return (kin or usable)[-1]


def _props(on: FeatureSet, off: FeatureSet) -> dict[str, bool]:
    return dict.fromkeys(on.grouped(), True) | dict.fromkeys(off.grouped(), False)


def _rank(model: CPUModel) -> tuple[Any, ...]:
    return (*level_of(model.identity), model.identity["machine-type"])
