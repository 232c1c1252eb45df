"""Clockwork: it runs every toy but those that need an alarm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpufw.core.features import FeatureSet, FeatureTable


class Clockwork:
    """An accelerator with no `alarm`."""

    name = "clockwork"

    def capabilities(self) -> Mapping[str, int]:
        """How many springs it has."""
        return {"springs": 1}

    def supported_features(self, table: FeatureTable) -> FeatureSet:
        """All but the alarm."""
        return table.set(feature.name for feature in table) - table.set(["alarm"])

    def host_identity(self) -> Mapping[str, Any]:
        """The teeth of its own wheel."""
        return {"teeth": 42}

    def default_features(self, table: FeatureTable) -> tuple[FeatureSet, FeatureSet]:
        """It changes nothing on its own account."""
        return table.empty, table.empty

    def close(self) -> None:
        """Nothing to give back."""
