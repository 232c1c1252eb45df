"""libvirt's names: of features, and of models, which are not the models that QEMU calls so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
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
    of it.
    """

    features: frozenset[str] = frozenset()
    models: Mapping[str, LibvirtModel] = field(default_factory=dict)
    vendors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> LibvirtMap:
        """The map that a file made by tools/libvirt_map.py holds."""
        models: dict[str, LibvirtModel] = {}
        for name, each in record["models"].items():
            held = models[each["base"]].features if "base" in each else frozenset()
            features = (held | frozenset(each.get("add", ()))) - frozenset(each.get("remove", ()))
            models[name] = LibvirtModel(features, each.get("vendor"))
        return cls(frozenset(record["features"]), models, record["vendors"])


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

    def model(self, name: str) -> FeatureSet | None:
        """The features of libvirt's model `name`; None if libvirt has no model of its own."""
        found = self.map.models.get(name)
        if found is None:
            return None
        return self.table.set(self._features[each] for each in found.features & self._known)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self._features)
