"""The ID registers of a CPU: what its model says, as its features and its place change it.

Names are those by which QEMU shows the registers to a debugger: those of AArch32 and registers
that both states share have no suffix, those of AArch64 end in `_EL0` or `_EL1`. `CCSIDR2` is CCSIDR
with CSSELR = 2, the level-2 data or unified cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cpufw.core.features import FeatureSet
from cpufw_arm.fields import Field, field_of

GROUPS = ("registers", "caches", "implementation")

_CPUID_SCHEME = (
    *("ID_PFR0", "ID_PFR1", "ID_DFR0", "ID_AFR0"),
    *(f"ID_MMFR{number}" for number in range(5)),
    *(f"ID_ISAR{number}" for number in range(7)),
)
_ARMV8_AARCH32 = (*_CPUID_SCHEME, "ID_PFR2", "ID_DFR1", "ID_MMFR5", "REVIDR_EL1")
_OLD = ("CTR", "TCMTR", "SCTLR", "DBGDIDR")
_CP15 = ("TCMTR", "SCTLR", "ACTLR_EL1")
_M_PROFILE = (
    *("ID_PFR0", "ID_PFR1", "ID_DFR0", "ID_AFR0"),
    *(f"ID_MMFR{number}" for number in range(4)),
    *(f"ID_ISAR{number}" for number in range(6)),
    *("MPU_TYPE", "MVFR0", "MVFR1", "MVFR2", "CLIDR", "CTR"),
)

# The ID registers that every CPU of an architecture version has: zero where a model has no value.
SPACES: Mapping[str, tuple[str, ...]] = {
    "armv4": _OLD,
    "armv5te": _OLD,
    "armv6": (*_CPUID_SCHEME, *_CP15, "TLBTR"),
    "armv7-a": (*_CPUID_SCHEME, *_CP15, "TLBTR", "AIDR"),
    "armv7-r": (*_CPUID_SCHEME, *_CP15, "CTR", "CLIDR", "AIDR"),
    "armv8-r": (*_ARMV8_AARCH32, *_CP15, "AIDR", "PMCEID0", "PMCEID1"),
    "armv8-a32": (*_ARMV8_AARCH32, *_CP15, "TLBTR", "AIDR", "PMCEID0", "PMCEID1"),
    "armv8-a": (
        *(f"ID_AA64PFR{number}_EL1" for number in range(2)),
        *("ID_AA64ZFR0_EL1", "ID_AA64SMFR0_EL1"),
        *(f"ID_AA64DFR{number}_EL1" for number in range(2)),
        *(f"ID_AA64AFR{number}_EL1" for number in range(2)),
        *(f"ID_AA64ISAR{number}_EL1" for number in range(3)),
        *(f"ID_AA64MMFR{number}_EL1" for number in range(4)),
        *_ARMV8_AARCH32,
        *("MVFR0_EL1", "MVFR1_EL1", "MVFR2_EL1", "PMCEID0_EL0", "PMCEID1_EL0"),
        *("AIDR", "ACTLR_EL1", "MDRAR_EL1"),
    ),
    "armv6-m": _M_PROFILE,
    "armv7-m": _M_PROFILE,
    "armv8-m": _M_PROFILE,
}

_BEFORE_V7 = frozenset({"armv4", "armv5te", "armv6"})

PAUTH_ALGORITHMS = ("pauth-impdef", "pauth-qarma5", "pauth-qarma3")
_OLD_PAUTH_DEFAULT = "backcompat-pauth-default-use-qarma5"


def midr_name(isa: str) -> str:
    """What the main ID register is called: CPUID on M-profile, where it is in memory."""
    if isa.endswith("-m"):
        return "CPUID"
    return "MIDR_EL1" if isa == "armv8-a" else "MIDR"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the ID registers say of a CPU's machine.

    `affinity` are MPIDR's Aff fields, `cores` is how many CPUs there are, `gic_version` that of the
    interrupt controller, 0 without one: from 3 on the CPU has its system registers.
    """

    affinity: int = 0
    cores: int = 1
    gic_version: int = 0


def id_registers(
    identity: Mapping[str, Any],
    features: FeatureSet,
    switches: frozenset[str],
    surroundings: Surroundings,
) -> dict[str, int]:
    """Every ID register of a CPU by name.

    `identity` and `features` are an expansion's, `switches` the features that this model can be
    with and without.
    """
    isa = identity["isa"]
    registers = dict.fromkeys(SPACES[isa], 0)
    for group in GROUPS:
        registers |= identity.get(group, {})
    registers[midr_name(isa)] = identity["midr"]
    _configure(registers, identity)
    _surround(registers, surroundings)
    _switch(registers, features, switches, isa)
    if "pauth" in switches:
        old = identity.get(_OLD_PAUTH_DEFAULT, False)
        _select_pauth(registers, features, PAUTH_ALGORITHMS[1 if old else 0])
    return registers


def _configure(registers: dict[str, int], identity: Mapping[str, Any]) -> None:
    """What properties put into registers."""
    suffix = identity["isa"] == "armv8-a"
    for name, register in (
        ("cntfrq", "CNTFRQ_EL0" if suffix else "CNTFRQ"),
        ("reset-cbar", "CBAR_EL1" if suffix else "CBAR"),
    ):
        if name in identity:
            registers[register] = identity[name]
    if "pmsav7-dregion" in identity:
        for name in ("MPUIR.DREGION", "MPU_TYPE.DREGION"):
            _put(registers, name, identity["pmsav7-dregion"])


def _surround(registers: dict[str, int], surroundings: Surroundings) -> None:
    """What the machine puts into registers."""
    for name in ("MPIDR_EL1", "MPIDR"):
        if registers.get(name):
            registers[name] |= surroundings.affinity
    for name in ("L2CTLR", "L2CTLR_EL1"):
        if name in registers:
            # The number of cores less one, in bits 25:24 (Cortex-A15 and Cortex-A57 TRMs).
            registers[name] |= min(surroundings.cores - 1, 3) << 24
    if surroundings.gic_version >= 3:
        for name in ("ID_AA64PFR0_EL1.GIC", "ID_PFR1.GIC"):
            _put(registers, name, 1)


def _put(registers: dict[str, int], name: str, value: int) -> None:
    field = field_of(name)
    if field is not None and field.register in registers:
        registers[field.register] = field.put(registers[field.register], value)


@dataclass(frozen=True, slots=True)
class _Place:
    """A place of a feature, as features.yaml says how to write it.

    `field` None stands for the whole register, `off` None for zero wherever the feature is not
    there, `on` None for what the model says.
    """

    register: str
    field: Field | None
    off: int | None
    on: int | None


@cache
def _place(text: str, before_v7: bool) -> _Place | None:
    name, _, values = text.partition(":")
    register, dot, _ = name.partition(".")
    off, _, on = values.partition("-")
    field = field_of(name, before_v7) if dot else None
    if dot and field is None:
        return None
    return _Place(register, field, int(off) if off else None, int(on) if on else None)


def _switch(
    registers: dict[str, int], features: FeatureSet, switches: frozenset[str], isa: str
) -> None:
    for feature in features.table:
        if feature.name in PAUTH_ALGORITHMS:
            continue
        on = feature.name in features
        for text in feature.places:
            place = _place(text, isa in _BEFORE_V7)
            if place is None or place.register not in registers:
                continue
            # M-profile has other things in some of these fields.
            explicit = place.off is not None or isa.endswith("-m")
            if explicit and feature.name not in switches:
                continue
            value = place.on if on else place.off or 0
            if place.field is not None and value is not None:
                registers[place.register] = place.field.put(registers[place.register], value)
            elif place.field is None and not on:
                registers.pop(place.register)
                if place.register in SPACES[isa]:
                    registers[place.register] = 0


def _select_pauth(registers: dict[str, int], features: FeatureSet, default: str) -> None:
    """Move the model's level of pointer authentication to the fields of the algorithm in use."""
    fields = {
        algorithm: [
            field for place in features.table[algorithm].places if (field := field_of(place))
        ]
        for algorithm in PAUTH_ALGORITHMS
    }
    level = 0
    for address, generic in fields.values():
        level = max(level, address.get(registers[address.register]))
        for field in (address, generic):
            registers[field.register] = field.put(registers[field.register], 0)
    if "pauth" in features:
        chosen = [algorithm for algorithm in PAUTH_ALGORITHMS if algorithm in features] or [default]
        for field, value in zip(fields[chosen[0]], (level, 1), strict=True):
            registers[field.register] = field.put(registers[field.register], value)
