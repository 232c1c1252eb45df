"""How CPUs stand to one another: the order of CPU models, and its greatest lower bound.

A CPU here is a model with its properties applied, or what a host can give a guest. `a` is a
*superset* of `b` when wherever `a` can run `b` can: `a` has every feature of `b`, and the
architecture's rules find nothing in `b`'s identity that `a` does not cover. The laws:

- the relation is a partial order: `compare(b, a)` is the mirror of `compare(a, b)`, a subset of a
  subset is a subset, and two CPUs are identical exactly if all their values and features are;
- values that tell CPUs apart and ask nothing of a host (a stepping, a name) leave the verdict to
  the rest. Where nothing else differs, the higher value counts as the superset: each of the two
  can stand in for the other, and a guest would still notice;
- `common` is the greatest CPU that is a subset of each of several, migratable features only.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from cpufw.core.features import FeatureSet
from cpufw.errors import ModelError

_DISTINCT_IDENTITIES = 256  # kept side by side until the rules are asked for what they share


class Relation(enum.Enum):
    """How one CPU stands to another, in QMP's words (`CpuModelCompareResult`)."""

    IDENTICAL = "identical"
    SUPERSET = "superset"
    SUBSET = "subset"
    INCOMPATIBLE = "incompatible"

    @property
    def mirror(self) -> Relation:
        """The same seen from the other side."""
        return _MIRROR.get(self, self)

    def __and__(self, other: Relation) -> Relation:
        """What holds of the whole, when `self` holds of one part and `other` of the rest."""
        if self is other or other is Relation.IDENTICAL:
            return self
        return other if self is Relation.IDENTICAL else Relation.INCOMPATIBLE


_MIRROR = {Relation.SUPERSET: Relation.SUBSET, Relation.SUBSET: Relation.SUPERSET}


class ModelRules(Protocol):
    """What an architecture knows about the identities of its CPUs; feature sets need no rules.

    An identity is `Expansion.identity`: every value of a model that is not a feature.
    """

    def compare_identity(
        self, a: Mapping[str, Any], b: Mapping[str, Any]
    ) -> tuple[Relation, tuple[str, ...]]:
        """How `a` stands to `b`, and the names of the values responsible for any difference.

        IDENTICAL with names means: they differ, and ask the same of a host. The names come in one
        fixed order, the most significant first.
        """

    def common_identity(self, identities: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The identity of the richest CPU that can run wherever each of these can.

        Raises `ModelError` naming the values that contradict.
        """


@runtime_checkable
class NormalizingRules(ModelRules, Protocol):
    """The rules of an architecture where one CPU can be described in several ways."""

    def normal_identity(self, identity: Mapping[str, Any]) -> Mapping[str, Any]:
        """The one way to say it, in properties that can be set again to the same effect."""


class EqualIdentities:
    """The rules of an architecture that brings none: only equal identities go together."""

    def compare_identity(
        self, a: Mapping[str, Any], b: Mapping[str, Any]
    ) -> tuple[Relation, tuple[str, ...]]:
        """IDENTICAL, or INCOMPATIBLE for the values that differ."""
        names = tuple(name for name in sorted({*a, *b}) if a.get(name) != b.get(name))
        return Relation.INCOMPATIBLE if names else Relation.IDENTICAL, names

    def common_identity(self, identities: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The identity that all share. Raises `ModelError`."""
        first = identities[0]
        names = {name for each in identities for name in self.compare_identity(first, each)[1]}
        if names:
            raise ModelError(f"the CPUs contradict one another in {', '.join(sorted(names))}")
        return first


class Operand(NamedTuple):
    """One CPU of a comparison; `name` is what reports call it."""

    name: str
    features: FeatureSet
    identity: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How `a` stands to `b`, and what is responsible.

    `only_a` and `only_b` are the features that the other lacks, `values` the names of the identity
    values that differ.
    """

    relation: Relation
    only_a: FeatureSet
    only_b: FeatureSet
    values: tuple[str, ...]

    @property
    def responsible(self) -> tuple[str, ...]:
        """The properties that differ (QMP's `responsible-properties`); none if identical.

        Of features that differ all together, the name of their group.
        """
        return (*(self.only_a | self.only_b).grouped(), *self.values)


def compare(a: Operand, b: Operand, rules: ModelRules) -> Comparison:
    """How `a` stands to `b`. Raises `ModelError` if they are of different architectures."""
    only_a, only_b = a.features - b.features, b.features - a.features
    relation, values = rules.compare_identity(a.identity, b.identity)
    if only_a:
        relation &= Relation.SUPERSET
    if only_b:
        relation &= Relation.SUBSET
    if values and relation is Relation.IDENTICAL:
        relation = _by_rank(a.identity, b.identity, values)
    return Comparison(relation, only_a, only_b, values)


def _by_rank(a: Mapping[str, Any], b: Mapping[str, Any], names: Iterable[str]) -> Relation:
    ranks = [[_rank(identity.get(name)) for name in names] for identity in (a, b)]
    return Relation.SUPERSET if ranks[0] > ranks[1] else Relation.SUBSET


def _rank(value: Any) -> tuple[Any, ...]:
    """A key that orders whatever an identity may hold; nothing comes before something."""
    if value is None:
        return (0,)
    if isinstance(value, (int, str)):
        return (1, type(value).__name__, value)
    return (2, repr(value))


def runnable(features: FeatureSet) -> FeatureSet:
    """What of `features` has all that it requires."""
    unmet = features.unmet()
    return features.without(features.table.set(unmet)) if unmet else features


def common(operands: Iterable[Operand], rules: ModelRules) -> Operand:
    """The richest CPU that can run, and migrate, wherever each of `operands` can.

    It has the migratable features that all have, less those that lack one they require, and the
    rules' common identity. The operands are taken one by one and not kept. Raises `ModelError` if
    there are none, or they are of several architectures, or contradict one another.
    """
    shared: FeatureSet | None = None
    mask = 0
    identities: dict[Any, Mapping[str, Any]] = {}
    for _, features, identity in operands:
        if shared is None:
            shared, mask = features, features.mask
        elif features.table is shared.table:
            mask &= features.mask
        else:
            shared & features  # raises, naming both architectures
        key = _key(identity)
        if key not in identities:
            if len(identities) == _DISTINCT_IDENTITIES:
                identity = rules.common_identity([*identities.values(), identity])
                identities, key = {}, _key(identity)
            identities[key] = identity
    if shared is None:
        raise ModelError("a baseline needs at least one model or host, and there is none")
    kept = FeatureSet(shared.table, mask) - shared.table.unmigratable
    identity = rules.common_identity(list(identities.values()))
    return Operand("baseline", runnable(kept), identity)


def _key(identity: Mapping[str, Any]) -> Any:
    items = tuple(identity.items())
    try:
        hash(items)
    except TypeError:  # a list of caches
        return repr(items)
    return items
