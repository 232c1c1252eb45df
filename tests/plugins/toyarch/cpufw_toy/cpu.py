"""A toy CPU: one status word that shows its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cpufw.core.cpu import CPUState
from cpufw.core.features import FeatureSet
from cpufw.core.qom import Property


class ToyCPU(CPUState):
    """After realize `status` has the bit of each feature that was granted."""

    type_name = "toy-cpu"
    extra_properties: ClassVar[Mapping[str, Property]] = {
        "teeth": Property("teeth", "uint32", "teeth of its main wheel", 12, low=3),
    }
    status: int | None = None

    def _synthesise(self) -> None:
        assert self.expansion is not None
        self.status = self._word(self.expansion.features)

    def _accelerate(self) -> FeatureSet:
        assert self.expansion is not None
        features = self.expansion.features
        if self.machine is not None and self.machine.accelerator is not None:
            features &= self.machine.accelerator.supported_features(features.table)
        self.status = self._word(features)
        return features

    def _release(self) -> None:
        self.status = None

    def reset(self) -> None:
        """Nothing to do: a toy has no state."""

    @staticmethod
    def _word(features: FeatureSet) -> int:
        places = (place for name in features for place in features.table[name].places)
        return sum(1 << int(place.rpartition(":")[2]) for place in places)
