"""The Arm CPU: properties, what they rule out, and its ID registers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from cpufw.core.cpu import CPUState
from cpufw.core.features import FeatureSet
from cpufw.core.model import CPUModel, Expansion
from cpufw.core.qom import Property
from cpufw.errors import ModelError
from cpufw_arm.affinity import mpidr_affinity
from cpufw_arm.registers import PAUTH_ALGORITHMS, Surroundings, id_registers
from cpufw_arm.vectors import QUADWORD, sme_lengths, sve_lengths

if TYPE_CHECKING:
    from cpufw.core.machine import Machine

_OLD_TIMER_HZ = 62_500_000

_PROPERTIES = (
    Property("midr", "uint64", "main ID register", 0, 0, 2**32 - 1),
    Property("mp-affinity", "uint64", "affinity as in MPIDR", 0, writable=False),
    Property("core-count", "int", "CPUs that the cluster's control register counts", 1, 1, 512),
    Property("cntfrq", "uint64", "frequency of the generic timer in Hz", 0, 1, 2**32 - 1),
    Property("reset-cbar", "uint64", "base address of private peripherals", 0),
    Property("rvbar", "uint64", "address of the first instruction", 0),
    Property("pmsav7-dregion", "uint32", "regions of the memory protection unit", 0, 0, 255),
    Property("psci-conduit", "uint32", "how PSCI is called: 0 not, 1 by SMC, 2 by HVC", 0, 0, 2),
    Property("start-powered-off", "bool", "wait for PSCI CPU_ON", False),
    Property("sve-max-vq", "uint32", "longest SVE vector in units of 128 bits", 16, 1, 16),
    Property("backcompat-cntfrq", "bool", "the generic timer's default of older machines", False),
    Property(
        "backcompat-pauth-default-use-qarma5", "bool", "pauth means QARMA5, as it once did", False
    ),
)  # fmt: skip


class ArmCPU(CPUState):
    """An Arm vCPU; there is no accelerator for it, so all that is asked for is granted.

    After realize `id_registers` maps the name of each ID register to its value.
    """

    type_name = "arm-cpu"
    extra_properties: ClassVar[Mapping[str, Property]] = {spec.name: spec for spec in _PROPERTIES}

    id_registers: Mapping[str, int] = MappingProxyType({})

    def get(self, name: str) -> Any:
        """The value of a property; a realized CPU shows what its machine made of it."""
        value = super().get(name)
        spelt = name.replace("_", "-")
        if self.expansion is None or spelt not in self.extra_properties:
            return value
        if spelt == "mp-affinity":
            return self.arch_id
        return self.expansion.identity.get(spelt, value)

    def expand(self, machine: Machine | None = None) -> Expansion:
        """What realize would ask for, with the vector lengths that follow from the wishes.

        Raises `ModelError` as for every CPU, and for features that the model cannot have or be
        without and for vector lengths or algorithms that contradict one another.
        """
        wishes = dict(self._values)
        if machine is not None:
            wishes = {**machine.compat_values(type(self)), **wishes}
        table = self.model.table
        on = table.set(name for name, value in wishes.items() if name in table and value)
        off = table.set(name for name, value in wishes.items() if name in table and not value)
        _check_available(self.model, on, off)
        expansion = super().expand(machine)
        features = _with_lengths(expansion, on, off, self._values.get("sve-max-vq"))
        _check_pauth(self.model, features)
        identity = dict(expansion.identity)
        if identity.get("backcompat-cntfrq") and "cntfrq" not in self._values:
            identity["cntfrq"] = min(identity.get("cntfrq", _OLD_TIMER_HZ), _OLD_TIMER_HZ)
        return replace(expansion, features=features, identity=identity)

    def _synthesise(self) -> None:
        assert self.expansion is not None
        topology = self.topology
        slot = self.slot.id if self.slot is not None else topology.slot(0)
        self.id_registers = MappingProxyType(
            id_registers(
                self._own_values(self.expansion.identity),
                self.expansion.features,
                switches(self.model),
                Surroundings(
                    mpidr_affinity(topology, slot),
                    self.given("core-count") or topology.cpus,
                    getattr(self.machine.board, "gic_version", 0) if self.machine else 0,
                ),
            )
        )

    def _own_values(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """`identity` without properties that this model's hardware has nothing for."""
        model = self.model.identity
        hardware = ("cntfrq", "reset-cbar", "pmsav7-dregion")
        return {
            name: value for name, value in identity.items() if name not in hardware or name in model
        }

    def _release(self) -> None:
        self.id_registers = MappingProxyType({})

    def reset(self) -> None:
        """Nothing to do: nothing runs."""


def switches(model: CPUModel) -> frozenset[str]:
    """The names of the features that `model` can be with and without.

    The inputs that configure it out of reset are among them without being in any definition.
    """
    inputs = ["cfgend"] if model.identity["isa"].endswith("-m") else ["cfgend", "reset-hivecs"]
    return frozenset({*model.features, *model.identity.get("optional", ()), *inputs})


def _check_available(model: CPUModel, on: FeatureSet, off: FeatureSet) -> None:
    possible = switches(model)
    for name in on:
        if name in possible:
            continue
        lengths = _lengths(model.features, name[:3])
        if name[:3] in ("sve", "sme") and name[3:].isdigit() and lengths:
            known = ", ".join(map(str, sorted(lengths)))
            raise ModelError(
                f"{model.name} has no vectors of {name[3:]} bits ({name}); it has {known}"
            )
        place = model.table[name].places[0].partition(":")[0]
        raise ModelError(f"{model.name} has no {name} ({place}), so it cannot be turned on")
    if "aarch64" in off & model.features:
        raise ModelError(_no_aarch32(model))
    if model.identity["isa"] == "armv8-a":
        for name in ("neon", "vfp"):
            if name in off:
                raise ModelError(
                    f"{model.name}: {name} cannot be turned off, a 64-bit Arm CPU always has "
                    "floating point and Advanced SIMD"
                )
    elif "neon" in model.features and "vfp" not in off:
        pair = model.table.set(["neon", "vfp-d32"])
        if (off & pair) and (off & pair) != pair:
            _refuse_half(model, off & pair, pair - off)


def _refuse_half(model: CPUModel, off: FeatureSet, kept: FeatureSet) -> None:
    gone, other = next(iter(off)), next(iter(kept))
    remedy = "turn off both" if other in model.features else f"this model cannot lose {gone}"
    raise ModelError(
        f"{model.name}: {gone}=off goes only together with {other}=off, Advanced SIMD uses "
        f"32 registers; {remedy}"
    )


def _no_aarch32(model: CPUModel) -> str:
    level = model.identity["registers"].get("ID_AA64PFR0_EL1", 0) >> 4 & 0xF  # the field EL1
    if level < 2:
        return f"{model.name}: aarch64=off is impossible, its EL1 has no 32-bit state"
    return (
        f"{model.name}: aarch64=off needs KVM on a host with 32-bit EL1, and there is none; "
        "choose a 32-bit model such as cortex-a15"
    )


def _lengths(features: FeatureSet, kind: str) -> set[int]:
    names = (name for name in features if name[:3] == kind and name[3:].isdigit())
    return {int(name[3:]) for name in names}


def _with_lengths(
    expansion: Expansion, on: FeatureSet, off: FeatureSet, max_vq: int | None
) -> FeatureSet:
    """The expansion's features with the vector lengths that follow from the wishes."""
    model, features = expansion.model, expansion.features
    table = features.table
    chosen: dict[str, set[int]] = {"sve": set(), "sme": set()}
    if "sve" in features:
        known = _lengths(model.features, "sve")
        limit = _limit(model, known, max_vq)
        chosen["sve"] = sve_lengths(
            model.name, known, _lengths(on, "sve"), _lengths(off, "sve"), limit
        )
    elif max_vq is not None:
        without = "was turned off" if "sve" in model.features else "this model does not have"
        raise ModelError(f"{model.name}: sve-max-vq={max_vq} needs sve, which {without}")
    if "sme" in features:
        known = _lengths(model.features, "sme")
        chosen["sme"] = sme_lengths(model.name, known, _lengths(on, "sme"), _lengths(off, "sme"))
    for kind, lengths in chosen.items():
        every = table.set(f"{kind}{length}" for length in _lengths(features, kind))
        features = (features - every) | table.set(f"{kind}{length}" for length in lengths)
    return features


def _limit(model: CPUModel, known: set[int], max_vq: int | None) -> int | None:
    if max_vq is None:
        return None
    if max_vq * QUADWORD not in known:
        longest = max(known)
        raise ModelError(
            f"{model.name}: sve-max-vq={max_vq} asks for vectors of {max_vq * QUADWORD} bits, "
            f"which this model does not have; its longest are {longest // QUADWORD} ({longest})"
        )
    return max_vq * QUADWORD


def _check_pauth(model: CPUModel, features: FeatureSet) -> None:
    chosen = [name for name in PAUTH_ALGORITHMS if name in features]
    if len(chosen) > 1:
        raise ModelError(
            f"{model.name}: {' and '.join(chosen)} exclude one another, a CPU signs pointers by "
            "one algorithm; keep one"
        )
