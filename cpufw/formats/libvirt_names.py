"""libvirt's names: of features, and of models, which are not the models that QEMU calls so."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cpufw.core.features import FeatureSet, FeatureTable


@dataclass(frozen=True)
class LibvirtModel:
    """A model of libvirt's CPU map: the features that it resolves to, by libvirt's names."""

    features: frozenset[str]
    vendor: str | None = None


@dataclass(frozen=True)
class LibvirtMap:
    """libvirt's CPU map of one architecture.

    `features` are all the names libvirt has; `vendors` maps an identity's vendor to libvirt's name
    of it. Where libvirt's models are names only, `hosts` maps those that it finds in hosts to the
    models here, and `guests` those that guests are given, too; None where there is no such model.
    """

    features: frozenset[str] = frozenset()
    models: Mapping[str, LibvirtModel] = field(default_factory=dict)
    vendors: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, str | None] = field(default_factory=dict)
    guests: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> LibvirtMap:
        """The map that a file made by tools/libvirt_map.py holds."""
        models: dict[str, LibvirtModel] = {}
        for name, each in record.get("models", {}).items():
            held = models[each["base"]].features if "base" in each else frozenset()
            features = (held | frozenset(each.get("add", ()))) - frozenset(each.get("remove", ()))
            models[name] = LibvirtModel(features, each.get("vendor"))
        return cls(
            frozenset(record["features"]),
            models,
            record.get("vendors", {}),
            record.get("hosts", {}),
            record.get("guests", {}),
        )


def names_in(folder: Path) -> Callable[[FeatureTable], LibvirtNames]:
    """What gives libvirt's names by the map in `folder`, a file `libvirt.json`."""

    def names(table: FeatureTable) -> LibvirtNames:
        text = (folder / "libvirt.json").read_text(encoding="utf-8")
        return LibvirtNames(table, LibvirtMap.from_record(json.loads(text)))

    return names


class LibvirtNames:
    """libvirt's names for the features of one table, both ways round.

    Without a map libvirt's names are taken to be those of the table, and its models QEMU's.
    """

    def __init__(self, table: FeatureTable, known: LibvirtMap | None = None) -> None:
        self.table, self.map = table, known or LibvirtMap()
        self._names: dict[str, tuple[str, ...]] = {}
        self._features: dict[str, str] = {}
        for feature in table:
            names = feature.aliases.get("libvirt", (feature.name,))
            if known is None or known.features.issuperset(names):
                self._names[feature.name] = names
                self._features.update(dict.fromkeys(names, feature.name))

    @cached_property
    def nameable(self) -> FeatureSet:
        """The features that libvirt has a name for."""
        return self.table.set(self._names)

    def of(self, feature: str) -> tuple[str, ...]:
        """The names of a feature: several where libvirt names each bit, none if it names none."""
        return self._names.get(feature, ())

    def feature(self, name: str) -> str | None:
        """The feature that libvirt, or QEMU, calls `name`; None if there is none here."""
        found = self._features.get(name)
        if found is None and name in self.table and name not in self.table.groups:
            found = self.table[name].name
        return found

    def renamed(self, name: str) -> str | None:
        """The model here that libvirt calls `name`; itself where libvirt has no name of its own.

        None for a CPU that only libvirt knows.
        """
        return {**self.map.hosts, **self.map.guests}.get(name, name)

    def guest_name(self, model: str) -> str:
        """What libvirt calls a model of a guest: as here, unless it has a name of its own."""
        return next((theirs for theirs, ours in self.map.guests.items() if ours == model), model)

    def model(self, name: str) -> FeatureSet | None:
        """The features of libvirt's model `name`; None if libvirt has no model of its own."""
        found = self.map.models.get(name)
        if found is None:
            return None
        return self.table.set(self._features[each] for each in found.features & self._known)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self._features)
