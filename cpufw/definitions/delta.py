"""Deltas: what a version, a member or a derived model changes in what it starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from cpufw.core.features import FeatureSet, FeatureTable
from cpufw.definitions.document import Document, Step
from cpufw.definitions.features import Report, unknown

# What every kind of model shares; all other keys are the architecture's identity values.
GENERIC_KEYS = {
    "kind", "name", "description", "source", "deprecated", "dynamic", "static", "arch",
    "features", "with", "versions", "members", "base", "add", "remove", "version", "alias",
    "aliases",
}  # fmt: skip

# What a version may say without changing anything.
SAYS_NOTHING = {"version", "alias", "description", "deprecated"}

Whole: TypeAlias = tuple[dict[str, Any], FeatureSet, dict[str, FeatureSet]]
"""A model written out: identity, features, what comes along with a feature."""


def changed_record(
    document: Document,
    delta: Mapping[str, Any],
    first: Whole,
    shared: Mapping[str, Any],
    where: list[Step],
    report: Report,
) -> dict[str, Any]:
    """The record of `first` with the `delta` of a version or a member applied.

    `shared` are the record's values that are the same for all models of the file.
    """
    identity, features, companions = first
    origin = "the family" if "members" in document.data else "version 1"
    changes = {key: value for key, value in delta.items() if key not in GENERIC_KEYS}
    for key, value in changes.items():
        if identity.get(key) == value:
            report(document, f"{key} is {value} already in {origin}", [*where, key])
    features = changed_features(document, features, delta, where, report)
    companions = dict(companions)
    for trigger, change in delta.get("with", {}).items():
        place = [*where, "with", trigger]
        if trigger not in companions:
            report(document, f"{origin} has nothing that comes with {trigger}", place)
            continue
        before = companions[trigger]
        companions[trigger] = changed_features(document, before, change, place, report)
    whole = ({**identity, **changes}, features, companions)
    check_requirements(document, whole, where, report)
    note = delta.get("description", "")
    record = write_out(shared, document.data["description"] + (f"; {note}" if note else ""), whole)
    record["deprecated"] = shared["deprecated"] or delta.get("deprecated", False)
    return record


def known_features(
    document: Document,
    table: FeatureTable,
    names: Sequence[str],
    where: Sequence[Step],
    report: Report,
) -> FeatureSet:
    """The features that go by `names`; names that nothing goes by are reported."""
    good = []
    for index, name in enumerate(names):
        if name in table:
            good.append(name)
        else:
            report(document, unknown("feature", name, feature_names(table)), [*where, index])
    return table.set(good)


def changed_features(
    document: Document,
    features: FeatureSet,
    delta: Mapping[str, Any],
    where: Sequence[Step],
    report: Report,
) -> FeatureSet:
    """`features` with the delta's `add` and `remove`; what changes nothing is reported."""
    table = features.table
    added = known_features(document, table, delta.get("add", ()), [*where, "add"], report)
    removed = known_features(document, table, delta.get("remove", ()), [*where, "remove"], report)
    for index, name in enumerate(delta.get("add", ())):
        if name in features:
            place = [*where, "add", index]
            report(document, f"cannot add {name}: it is there already", place)
    for index, name in enumerate(delta.get("remove", ())):
        if name in table and name not in features:
            place = [*where, "remove", index]
            report(document, f"cannot remove {name}: it is not there", place)
    return (features | added) - removed


def check_requirements(
    document: Document, whole: Whole, where: Sequence[Step], report: Report
) -> None:
    """Report each feature, or companion of one, that lacks what it requires."""
    _, features, companions = whole
    table = features.table
    for name, missing in features.unmet().items():
        report(document, f"{name} requires {', '.join(missing)}", where)
    for trigger, extra in companions.items():
        together = features | table.set([trigger]) | extra
        for name, missing in together.unmet().items():
            if name in extra:
                message = f"{name} (with {trigger}) requires {', '.join(missing)}"
                report(document, message, where)


def write_out(shared: Mapping[str, Any], description: str, whole: Whole) -> dict[str, Any]:
    """The record of a model as the index keeps it."""
    identity, features, companions = whole
    return {
        **shared,
        "version": None,
        "alias_of": None,
        "description": description,
        "identity": identity,
        "features": " ".join(features),
        "companions": {trigger: " ".join(names) for trigger, names in companions.items()},
    }


def feature_names(table: FeatureTable) -> Iterator[str]:
    """Every feature's name."""
    return (feature.name for feature in table)
