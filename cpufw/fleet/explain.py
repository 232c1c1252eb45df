"""Why a model cannot run on a host, or on several, and what can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cpufw.core.accel import Accelerator, Offer
from cpufw.core.algebra import ModelRules, Operand, Relation
from cpufw.core.capture import HostCapture
from cpufw.core.features import FeatureSet
from cpufw.core.model_algebra import ModelAlgebra
from cpufw.errors import CpufwError, ModelError
from cpufw.fleet.blockers import blockers


@dataclass(frozen=True)
class MissingFeature:
    """A feature that a model asks for and some host does not give.

    `required_by` are the model's features that cannot be without it, `hosts` those that lack it,
    `unknown_on` those of them whose capture does not say.
    """

    name: str
    places: tuple[str, ...]
    required_by: tuple[str, ...]
    hosts: tuple[str, ...]
    unknown_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """Whether `model` runs on all of `hosts`; if not, why not, and what does.

    `demands` names each host with the identity values (address bits, a generation) that ask more
    than it has; `differs` each host with the values that are of another kind than its own (the
    vendor): that does not keep an accelerator from running the model. `reduced` is the model
    without what is missing, as a `--cpu` string, and `as_is` the nearest named model that runs
    unchanged; None where there is none. `gains` are the hosts without which the model would have
    more of its features, and which.
    """

    model: str
    hosts: tuple[str, ...]
    missing: tuple[MissingFeature, ...]
    demands: tuple[tuple[str, tuple[str, ...]], ...]
    differs: tuple[tuple[str, tuple[str, ...]], ...]
    reduced: str | None
    as_is: str | None
    gains: tuple[tuple[str, FeatureSet], ...]

    @property
    def runs(self) -> bool:
        """Whether it runs on every host, with all that it asks for."""
        return not self.missing and not self.demands

    def sentence(self) -> str:
        """One line: `Haswell-v4 needs pcid; Haswell-v4,-pcid runs; Penryn-v1 runs as it is`."""
        if self.runs:
            return f"{self.model} runs as it is"
        needs = [each.name for each in self.missing]
        needs += dict.fromkeys(name for _, names in self.demands for name in names)
        parts = [f"{self.model} needs {', '.join(needs)}"]
        if self.reduced is not None:
            parts.append(f"{self.reduced} runs")
        if self.as_is is not None:
            parts.append(f"{self.as_is} runs as it is")
        if len(parts) == 1:
            parts.append("no model runs")
        return "; ".join(parts)


def explain(algebra: ModelAlgebra, model: str, hosts: Sequence[Accelerator]) -> Explanation:
    """Why `model`, a `--cpu` string, runs on all of `hosts`, or does not.

    A host is an opened accelerator or a capture; what it turns on and off on every model is taken
    into account. Raises what naming the model raises, and `ModelError` without hosts.
    """
    if not hosts:
        raise ModelError("no hosts are given")
    cpu = algebra.cpu(model)
    places = [_Place(algebra, host) for host in hosts]
    if cpu.model.dynamic:  # it is what each host gives
        names = tuple(place.name for place in places)
        return Explanation(model, names, (), (), (), None, None, ())
    operand = algebra.operand(cpu)
    lacked = [place.offer.lacks(operand.features, cpu.settled) for place in places]
    missing = operand.features.table.empty
    for each in lacked:
        missing |= each
    demands, differs = _identity(algebra.rules, operand.identity, places)
    wanted = operand.features | missing
    seen = [Operand(p.name, wanted - gone, {}) for p, gone in zip(places, lacked, strict=True)]
    blocked = blockers(seen, wanted)
    runs = not missing and not demands
    return Explanation(
        model,
        tuple(place.name for place in places),
        tuple(_missing(missing, wanted, blocked.lacking, places)),
        tuple(demands),
        tuple(differs),
        None if runs or demands else _reduced(algebra, model, wanted - wanted.without(missing)),
        None if runs else _as_is(algebra, operand, places),
        blocked.gains,
    )


class _Place:
    """A host with what is asked of it again and again."""

    def __init__(self, algebra: ModelAlgebra, host: Accelerator) -> None:
        table = algebra.catalogue.table
        self.name, self.identity = host.name, host.host_identity()
        self.offer = Offer(host, table)
        self.unknown = table.empty
        if isinstance(host, HostCapture):
            self.unknown = host.unknown_features(table)


Values = list[tuple[str, tuple[str, ...]]]


def _identity(
    rules: ModelRules, ours: Mapping[str, Any], places: Sequence[_Place]
) -> tuple[Values, Values]:
    """What of the identity asks for more than each place has, and what is of another kind."""
    demands: Values = []
    differs: Values = []
    for place in places:
        relation, names = rules.compare_identity(ours, place.identity)
        if relation not in (Relation.SUPERSET, Relation.INCOMPATIBLE):
            continue
        by_kind: dict[Relation, list[str]] = {Relation.SUPERSET: [], Relation.INCOMPATIBLE: []}
        for name in names:
            with_its = {key: value for key, value in ours.items() if key != name}
            if name in place.identity:
                with_its[name] = place.identity[name]
            kind = rules.compare_identity(ours, with_its)[0]
            if kind in by_kind:
                by_kind[kind].append(name)
        if not any(by_kind.values()):  # only together they are too much
            by_kind[relation] = list(names)
        for kind, found in ((Relation.SUPERSET, demands), (Relation.INCOMPATIBLE, differs)):
            if by_kind[kind]:
                found.append((place.name, tuple(by_kind[kind])))
    return demands, differs


def _missing(
    missing: FeatureSet,
    wanted: FeatureSet,
    lacking: Mapping[str, tuple[str, ...]],
    places: Sequence[_Place],
) -> Iterator[MissingFeature]:
    table = missing.table
    for name in missing:
        dependents = FeatureSet(table, table.dependent_masks[table.bit(name)] & wanted.mask)
        silent = tuple(place.name for place in places if name in place.unknown)
        yield MissingFeature(name, table[name].places, tuple(dependents), lacking[name], silent)


def _reduced(algebra: ModelAlgebra, model: str, gone: FeatureSet) -> str | None:
    """`model` without `gone`, in the words it was given in; None if that is no model."""
    table = gone.table
    name, *settings = model.split(",")
    kept = [
        part
        for part in settings
        if (feature := part.lstrip("+-").partition("=")[0]) not in table
        or table[feature].name not in gone
    ]
    text = ",".join([name, *kept, *(f"-{feature}" for feature in gone)])
    try:
        algebra.operand(text)
    except CpufwError:
        return None
    return text


def _as_is(algebra: ModelAlgebra, operand: Operand, places: Sequence[_Place]) -> str | None:
    """The named model nearest to `operand` that runs in all `places`."""
    rules, nothing = algebra.rules, operand.features.table.empty
    offers = {(p.offer.supported, p.offer.on, p.offer.off): p.offer for p in places}.values()

    def strangeness(other: Operand) -> tuple[bool, int]:
        relation, _ = rules.compare_identity(operand.identity, other.identity)
        return relation is Relation.INCOMPATIBLE, len(operand.features ^ other.features)

    newest_first = [other for _, other in algebra.named][::-1]
    for other in sorted(newest_first, key=strangeness):
        if any(offer.lacks(other.features, nothing) for offer in offers):
            continue
        if not _identity(rules, other.identity, places)[0]:
            return other.name
    return None
