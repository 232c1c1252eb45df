"""The compiled form of definitions: plain data, and the core's objects made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from cpufw.core.features import Feature, FeatureSet, FeatureTable
from cpufw.core.model import Catalogue, CPUModel
from cpufw.errors import DefinitionError

if TYPE_CHECKING:
    from cpufw.definitions.index import Record, Records


@dataclass
class CompiledArch:
    """One architecture's features and models as plain data.

    `models` maps each name to its record: family, version, alias_of, description, source,
    identity, features and companions (names joined by spaces), deprecated, dynamic, static.
    `machines` are the documents of kind `machines` as they were read; an index keeps them apart
    (`Index.machines`).
    """

    arch: str
    suffix: str
    model_kind: str
    features: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    machines: list[dict[str, Any]] = field(default_factory=list)

    def table(self) -> FeatureTable:
        """The architecture's feature table."""
        return feature_table(self.arch, self.features)

    def type_name(self, name: str) -> str:
        """The CPU type of the model `name`: as in `Catalogue.typed`, an alias may share one."""
        target = self.models[name]["alias_of"]
        shared = target is not None and self.models[target]["version"] is None
        return f"{target if shared else name}-{self.suffix}"


def feature_table(arch: str, entries: Iterable[Mapping[str, Any]]) -> FeatureTable:
    """The features of `arch` from the entries of its features file."""
    return FeatureTable(arch, [feature_of(entry) for entry in entries])


def feature_of(entry: Mapping[str, Any]) -> Feature:
    """The feature that one entry of a features file describes."""
    place, group = entry["place"], entry.get("group", ())
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
        (group,) if isinstance(group, str) else tuple(group),
        entry.get("since", ""),
        entry.get("deprecated", False),
    )


def build_catalogue(
    table: FeatureTable,
    layers: Iterable[Mapping[str, Record] | Records],
    case_sensitive: bool = True,
) -> Catalogue:
    """The models of one architecture from every layer of definitions, in order.

    A model is made from its record when it is first asked for. Raises `DefinitionError` if two
    models share a name.
    """

    @cache  # a model's names and versions mostly have the same features
    def features(names: str) -> FeatureSet:
        return table.set(names.split())

    models: dict[str, Callable[[], CPUModel]] = {}
    folded: dict[str, str] = {}
    layers = list(layers)
    for records in layers:
        for name in records:
            if name in models:
                raise DefinitionError([f"{table.arch} model '{name}' is defined in two folders"])
            models[name] = partial(_model, table.arch, name, records, features)
            other = name if case_sensitive else folded.setdefault(name.lower(), name)
            if other != name:
                message = f"{table.arch} models '{other}' and '{name}' differ only in case"
                raise DefinitionError([message])

    def static_names() -> Iterator[str]:
        return (name for records in layers for name in records if records[name]["static"])

    return Catalogue(table.arch, table, models, case_sensitive, static_names)


def _model(
    arch: str,
    name: str,
    records: Mapping[str, Record] | Records,
    features: Callable[[str], FeatureSet],
) -> CPUModel:
    record = records[name]
    return CPUModel(
        arch=arch,
        name=name,
        family=record["family"],
        features=features(record["features"]),
        version=record["version"],
        alias_of=record["alias_of"],
        description=record["description"],
        source=record["source"],
        identity=record["identity"],
        companions={trigger: features(names) for trigger, names in record["companions"].items()},
        deprecated=record["deprecated"],
        dynamic=record["dynamic"],
        static=record["static"],
    )
