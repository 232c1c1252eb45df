"""The s390x CPU: features and groups as properties, and what its guest reads of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpufw.core.cpu import CPUClass, CPUState
from cpufw.core.features import FeatureSet
from cpufw.core.machine import Machine
from cpufw.core.model import CPUModel, Expansion
from cpufw.core.qom import Property
from cpufw.errors import ModelError, PropertyError
from cpufw_s390x.levels import allowed, introduced, level_of

# Set in every CPU that runs in z/Architecture mode, and nothing that a model chooses: the mode is
# active (2), and the configuration has no other (138). PoP chapter 4, Facility Indications.
_MODE_BITS = (2, 138)
_FACILITY = "facility:"


class S390xCPUClass(CPUClass):
    """The class of s390x CPU types: groups of features are properties as well."""

    @property
    def properties(cls) -> Mapping[str, Property]:  # noqa: N805 - a metaclass
        """Every property of this CPU type by name, with its default for this model."""
        if "_properties" not in cls.__dict__:
            cls._properties = {**super().properties, **_group_properties(cls.model)}
        return cls._properties


def _group_properties(model: CPUModel) -> dict[str, Property]:
    return {
        name: Property(name, "bool", "together: " + ", ".join(members), name in model.features)
        for name, members in model.table.groups.items()
    }


class S390xCPU(CPUState, metaclass=S390xCPUClass):
    """An s390x vCPU.

    After realize `facilities` is what STFLE stores: bit 0 is the leftmost bit of the first byte,
    and the length is a multiple of 8 bytes. `cpuid` is what STIDP stores on core 0: 64 bits,
    version and identification 0, the machine type in bits 32 to 47.
    """

    type_name = "s390x-cpu"
    facilities: bytes = b""
    cpuid: int = 0

    def run_facts(self) -> dict[str, Any]:
        """`cpu-state`: only the boot CPU operates before a guest starts others (SIGP)."""
        return {"cpu-state": "operating" if self.cpu_index == 0 else "stopped"}

    def set(self, name: str, value: Any) -> None:
        """Set a property; a group sets its members, so that the last word on each counts.

        Raises `PropertyError`, also for a feature that came after this model.
        """
        spec = self._spec(name)
        table = self.model.table
        if spec.name not in table or self.realized:
            super().set(name, value)
            return
        on = spec.parse(value, self.type_name)
        members = table.set([spec.name])
        if on and not members & allowed(table, level_of(self.model.identity)):
            raise PropertyError(self._came_later(spec.name, members))
        for member in members:
            super().set(member, on)

    def get(self, name: str) -> Any:
        """The value of a property; of a group, whether all of its members are on."""
        group = self.model.table.groups.get(name)
        return super().get(name) if group is None else all(map(super().get, group))

    def _came_later(self, name: str, members: FeatureSet) -> str:
        levels = (introduced(self.model.table[member]) for member in members)
        since = min((level for level in levels if level is not None), default=None)
        if since is None:
            return f"{self.type_name}: {name} cannot be turned on, no model has it yet"
        return (
            f"{self.type_name}: {name} cannot be turned on, it came with {since} "
            f"and {self.model.name} is of {level_of(self.model.identity)}"
        )

    # --- the life of a CPU ---------------------------------------------------------------

    def expand(self, machine: Machine | None = None) -> Expansion:
        """What realize would ask for.

        As in QEMU a feature stays on when one that it requires is off: a warning says so after
        realize, and `enforce` refuses.
        """
        model, settings, table = self.model, dict(self._values), self.model.table
        defaults_on = defaults_off = table.empty
        if machine is not None:
            # Without an accelerator `max` is what QEMU makes of it under TCG.
            if not model.dynamic or machine.accelerator is not None:
                model = machine.resolve_model(model)
            settings = {**machine.compat_values(type(self)), **settings}
            defaults_on, defaults_off = machine.default_features(model)
        plus = table.set(name for name, value in settings.items() if name in table and value)
        minus = table.set(name for name, value in settings.items() if name in table and not value)
        features = (((model.features | defaults_on) - defaults_off) | plus) - minus
        return Expansion(model, features, dict(model.identity), table.empty)

    def _synthesise(self) -> None:
        assert self.expansion is not None
        self._show(self.expansion.features)
        self.cpuid = int(str(self.expansion.identity["machine-type"]), 16) << 16

    def _show(self, features: FeatureSet) -> None:
        self.facilities = facility_list(features)

    def _check_granted(self) -> None:
        super()._check_granted()
        lacking: dict[tuple[str, ...], list[str]] = {}
        for name, missing in self.requested.unmet().items():
            lacking.setdefault(missing, []).append(name)
        unmet = [
            f"{self.model.name}: {', '.join(missing)} is required by {', '.join(names)} and off"
            for missing, names in lacking.items()
        ]
        if unmet and self.get("enforce"):
            raise ModelError("; ".join(unmet))
        if self.get("check"):
            self.warnings += tuple(unmet)

    def _release(self) -> None:
        self.facilities, self.cpuid = b"", 0

    def reset(self) -> None:
        """Nothing to do: no accelerator runs s390x guests."""


def facility_list(features: FeatureSet) -> bytes:
    """What STFLE stores for a CPU with `features` in z/Architecture mode (PoP chapter 4)."""
    places = (place for name in features for place in features.table[name].places)
    found = [int(place.removeprefix(_FACILITY)) for place in places if place.startswith(_FACILITY)]
    if "zarch" in features:
        found += _MODE_BITS
    doublewords = max(found, default=0) // 64 + 1
    stored = bytearray(8 * doublewords)
    for bit in found:
        stored[bit // 8] |= 0x80 >> bit % 8
    return bytes(stored)
