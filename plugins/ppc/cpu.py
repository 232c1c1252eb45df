"""A PowerPC CPU: the PVR, the ISA facilities a program is told of, the compatibility mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from cpufw.core.cpu import CPUState
from cpufw.core.features import FeatureSet
from cpufw.core.model import Expansion
from cpufw.core.qom import Property
from cpufw.errors import ModelError
from cpufw_ppc.compat import compat_mode, features_in
from cpufw_ppc.pvr import pvr_mask

if TYPE_CHECKING:
    from cpufw.core.machine import Machine


class PPCCPU(CPUState):
    """A PowerPC CPU.

    After realize `pvr` is the processor version register, `cpu_version` what the device tree says
    of it (the logical PVR in a compatibility mode), `hwcap` and `hwcap2` the AT_HWCAP and AT_HWCAP2
    bits that Linux would give programs for the features granted.
    """

    type_name = "powerpc-cpu"
    extra_properties: ClassVar[Mapping[str, Property]] = {
        "pvr": Property("pvr", "uint32", "processor version register, of the model's family", 0),
        "compat-mode": Property(
            "compat-mode", "string", "look like an earlier processor: power6 … power11", ""
        ),
    }
    pvr: int | None = None
    cpu_version: int | None = None
    hwcap: int | None = None
    hwcap2: int | None = None

    def expand(self, machine: Machine | None = None) -> Expansion:
        """As every CPU's, then in the compatibility mode. Raises `ModelError`."""
        expansion = super().expand(machine)
        identity = dict(expansion.identity)
        own, mask = self.model.identity["pvr"], pvr_mask(identity)
        if (identity["pvr"] ^ own) & mask:
            raise ModelError(
                f"{self.model.name}: pvr {identity['pvr']:#010x} is not of family "
                f"{self.model.family}, expected {own & mask:#010x} in the bits {mask:#010x}"
            )
        if not identity.get("compat-mode"):
            identity.pop("compat-mode", None)
            return replace(expansion, identity=identity)
        offered = identity.get("compat-modes", ())
        mode = compat_mode(identity["compat-mode"], offered, self.model.name)
        features = features_in(mode, expansion.features)
        asked = {name for name, value in self._values.items() if value is True}
        refused = [name for name in expansion.features - features if name in asked]
        if refused:
            raise ModelError(
                f"{self.model.name}: {', '.join(refused)} cannot be had in compatibility mode "
                f"{mode.name}; drop +{',+'.join(refused)} or the mode"
            )
        return replace(expansion, features=features, identity=identity)

    def _synthesise(self) -> None:
        assert self.expansion is not None
        identity = self.expansion.identity
        self.pvr = self.cpu_version = identity["pvr"]
        if "compat-mode" in identity:
            mode = compat_mode(identity["compat-mode"], identity["compat-modes"], self.model.name)
            self.cpu_version = mode.logical_pvr
        self._show(self.expansion.features)

    def _show(self, features: FeatureSet) -> None:
        self.hwcap, self.hwcap2 = (_word(features, word) for word in ("HWCAP", "HWCAP2"))

    def _release(self) -> None:
        self.pvr = self.cpu_version = self.hwcap = self.hwcap2 = None

    def reset(self) -> None:
        """Nothing to do: nothing runs this CPU."""


def _word(features: FeatureSet, word: str) -> int:
    places = (place.partition(":") for name in features for place in features.table[name].places)
    return sum(1 << int(bit) for register, _, bit in places if register == word)
