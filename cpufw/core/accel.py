"""What an accelerator must offer to the rest of cpufw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cpufw.core.features import FeatureSet, FeatureTable
    from cpufw.core.model import CPUModel


class Accelerator(Protocol):
    """An opened accelerator of one architecture, such as /dev/kvm for x86."""

    name: str

    def capabilities(self) -> Mapping[str, int]:
        """What it can do, by its own names."""
        ...

    def supported_features(self, table: FeatureTable) -> FeatureSet:
        """Every feature it can give a guest."""
        ...

    def host_identity(self) -> Mapping[str, Any]:
        """The identity values (vendor, family, …) of a guest that is to look like this host."""
        ...

    def default_features(self, table: FeatureTable) -> tuple[FeatureSet, FeatureSet]:
        """The features it turns on, and those it turns off, on every model."""
        ...

    def close(self) -> None:
        """Give the accelerator back; machines on it must be closed first."""
        ...


class Offer:
    """What an accelerator gives to the models of one feature table, asked for once."""

    def __init__(self, accelerator: Accelerator, table: FeatureTable) -> None:
        self.supported = accelerator.supported_features(table)
        self.on, self.off = accelerator.default_features(table)

    def lacks(self, features: FeatureSet, settled: FeatureSet) -> FeatureSet:
        """What it cannot give of `features`, when it may change those not `settled`."""
        asked = (features | self.on - settled).without(self.off - settled)
        return asked - self.supported


def filled_in(model: CPUModel, accelerator: Accelerator) -> CPUModel:
    """The `dynamic` model (`host`, `max`) as `accelerator` makes it, migratable features only."""
    features = accelerator.supported_features(model.table)
    return replace(
        model,
        features=features - model.table.unmigratable,
        identity={**model.identity, **accelerator.host_identity()},
    )


def defaults_of(accelerator: Accelerator | None, model: CPUModel) -> tuple[FeatureSet, FeatureSet]:
    """What `accelerator` turns on and off in `model`: nothing but in named models."""
    if accelerator is None or model.static or model.dynamic:
        return model.table.empty, model.table.empty
    return accelerator.default_features(model.table)
