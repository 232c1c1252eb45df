"""Compatibility modes: a Power processor made to look like one of an earlier ISA level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cpufw.core.features import FeatureSet
from cpufw.errors import ModelError, nearest


@dataclass(frozen=True)
class CompatMode:
    """A mode by its name, as in QEMU's `max-cpu-compat`.

    `logical_pvr` is what the device tree's cpu-version then says (PAPR); `without` are the
    features that came after its ISA level, with all that requires them. No processor's own level
    is a `variant`: only the family that brought it has that mode.
    """

    name: str
    logical_pvr: int
    without: tuple[str, ...] = ()
    variant: bool = False


COMPAT_MODES: Mapping[str, CompatMode] = {
    mode.name: mode
    for mode in (
        # A pseries guest in mode power6 is not told of decimal floating point.
        CompatMode("power6", 0x0F000002, ("arch_2_06", "dfp")),
        CompatMode("power7", 0x0F000003, ("arch_2_07",)),
        CompatMode("power7+", 0x0F100003, ("arch_2_07",), variant=True),
        CompatMode("power8", 0x0F000004, ("arch_3_00",)),
        CompatMode("power9", 0x0F000005, ("arch_3_1",)),
        CompatMode("power10", 0x0F000006),
        CompatMode("power11", 0x0F000007),
    )
}
"""Every mode, oldest first."""


def compat_mode(name: str, offered: Sequence[str], model: str) -> CompatMode:
    """The mode `name` of a CPU that has the modes `offered`. Raises `ModelError`."""
    if name not in COMPAT_MODES:
        near = nearest(name, COMPAT_MODES)
        known = ", ".join(COMPAT_MODES)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {known}"
        raise ModelError(f"compatibility mode '{name}' is not known; {hint}")
    if name not in offered:
        has = f"it has {', '.join(offered)}" if offered else "it has none"
        raise ModelError(f"{model} has no compatibility mode {name}; {has}")
    return COMPAT_MODES[name]


def features_in(mode: CompatMode, features: FeatureSet) -> FeatureSet:
    """Those of `features` that a CPU has in `mode`."""
    return features.without(features.table.set(mode.without))
