"""The third layer of checks, for features files: names, bits and requirements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cpufw.core.features import FeatureTable
from cpufw.definitions.compiled import CompiledArch, feature_of
from cpufw.definitions.document import Document, Step
from cpufw.errors import ModelError, nearest

Report = Callable[[Document, str, Sequence[Step]], None]


def compile_features(
    document: Document, name: str, report: Report
) -> tuple[CompiledArch, FeatureTable]:
    """The architecture `name` as a features file defines it, without models.

    Violations go to `report`; the table then leaves out requirements that make no sense, so that
    models can still be checked against it.
    """
    data = document.data
    entries = data["features"]
    _check_names_and_bits(document, entries, report)
    sensible = _check_requirements(document, entries, report)
    suffix = data.get("type-suffix", f"{name}-cpu")
    if isinstance(suffix, dict):
        suffix = suffix.get(name, f"{name}-cpu")
    arch = CompiledArch(name, suffix, data["models"], sensible)
    table = arch.table()
    try:
        _ = table.requirement_masks
    except ModelError as error:
        report(document, str(error), ["features"])
        arch.features = [{**entry, "requires": []} for entry in sensible]
        table = arch.table()
    return arch, table


def _check_names_and_bits(
    document: Document, entries: Sequence[dict[str, Any]], report: Report
) -> None:
    owner: dict[str, str] = {}
    names: dict[str, str] = {}
    groups = {group for entry in entries for group in feature_of(entry).groups}
    for index, entry in enumerate(entries):
        feature = feature_of(entry)
        for place in feature.places:
            if place in owner:
                message = f"{feature.name} and {owner[place]} share the bit {place}"
                report(document, message, ["features", index, "place"])
            owner.setdefault(place, feature.name)
        for called in (feature.name, *feature.aliases.get("qemu", ())):
            if called in names:
                message = f"'{called}' also names the feature {names[called]}"
                report(document, message, ["features", index, "name"])
            if called in groups:
                message = f"'{called}' also names a group of features"
                report(document, message, ["features", index, "name"])
            names.setdefault(called, feature.name)


def _check_requirements(
    document: Document, entries: Sequence[dict[str, Any]], report: Report
) -> list[dict[str, Any]]:
    own = {entry["name"] for entry in entries}
    sensible = []
    for index, entry in enumerate(entries):
        requires = entry.get("requires", [])
        for position, needed in enumerate(requires):
            if needed not in own:
                message = unknown("feature", needed, own)
                report(document, message, ["features", index, "requires", position])
        if not own.issuperset(requires):
            entry = {**entry, "requires": [needed for needed in requires if needed in own]}
        sensible.append(entry)
    return sensible


def unknown(kind: str, name: str, known: Any) -> str:
    """That nothing goes by `name`, with the nearest of the `known` names."""
    near = nearest(name, known)
    return f"{kind} '{name}' is not known" + (f"; did you mean {near[0]}?" if near else "")
