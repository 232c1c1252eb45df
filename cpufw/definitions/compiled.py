"""The compiled form of definitions: plain data, and the core's objects made from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cpufw.core.features import Feature, FeatureTable
from cpufw.core.model import Catalogue, CPUModel
from cpufw.errors import DefinitionError


@dataclass
class CompiledArch:
    """One architecture's features and models as plain data.

    `models` maps each name to its record: family, version, alias_of, description, source,
    identity, features and companions (names joined by spaces), deprecated, dynamic, static.
    """

    arch: str
    suffix: str
    model_kind: str
    features: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)

    def table(self) -> FeatureTable:
        """The architecture's feature table."""
        return FeatureTable(self.arch, [feature_of(entry) for entry in self.features])


def feature_of(entry: Mapping[str, Any]) -> Feature:
    """The feature that one entry of a features file describes."""
    place = entry["place"]
    aliases = {
        project: (names,) if isinstance(names, str) else tuple(names)
        for project, names in entry.get("aliases", {}).items()
    }
    return Feature(
        entry["name"],
        (place,) if isinstance(place, str) else tuple(place),
        tuple(entry.get("requires", ())),
        aliases,
        entry.get("migratable", True),
        tuple(entry.get("vendors", ())),
        entry.get("description", ""),
        entry.get("source", ""),
    )


def build_catalogue(arch: str, layers: Iterable[Mapping[str, CompiledArch]]) -> Catalogue:
    """The models of `arch` from every layer of definitions, in order.

    Raises `DefinitionError` if no layer has its features or two layers share a model's name.
    """
    parts = [layer[arch] for layer in layers if arch in layer]
    tables = [part for part in parts if part.features]
    if not tables:
        raise DefinitionError([f"no definitions give the features of {arch}"])
    table = tables[0].table()
    models: dict[str, CPUModel] = {}
    for part in parts:
        for name, record in part.models.items():
            if name in models:
                raise DefinitionError([f"{arch} model '{name}' is defined in two folders"])
            models[name] = _model(arch, name, record, table)
    return Catalogue(arch, table, models.values())


def _model(arch: str, name: str, record: Mapping[str, Any], table: FeatureTable) -> CPUModel:
    return CPUModel(
        arch=arch,
        name=name,
        family=record["family"],
        features=table.set(record["features"].split()),
        version=record["version"],
        alias_of=record["alias_of"],
        description=record["description"],
        source=record["source"],
        identity=record["identity"],
        companions={
            trigger: table.set(names.split()) for trigger, names in record["companions"].items()
        },
        deprecated=record["deprecated"],
        dynamic=record["dynamic"],
        static=record["static"],
    )
