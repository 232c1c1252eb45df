"""What an accelerator must offer to the rest of cpufw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cpufw.core.features import FeatureSet, FeatureTable


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
