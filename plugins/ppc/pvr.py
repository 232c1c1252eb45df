"""From a processor version register to the models and the family it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpufw.errors import ModelError, NotFoundError
from cpufw_ppc.compat import COMPAT_MODES

if TYPE_CHECKING:
    from cpufw.core.model import Catalogue, CPUModel

VERSION_FIELD = 0xFFFF0000
"""The PVR's version field; the lower half is the revision (Power ISA 3.1 Book III, PVR)."""


@dataclass(frozen=True)
class PvrMatch:
    """What a PVR stands for.

    `models` have exactly this PVR, or the nearest one of the `family` if it is not `exact`. Several
    models may share a PVR: software cannot tell them apart.
    """

    pvr: int
    models: tuple[CPUModel, ...]
    exact: bool

    @property
    def family(self) -> str:
        """The family's name."""
        return self.models[0].family


def pvr_mask(identity: Mapping[str, Any]) -> int:
    """The PVR bits that tell a model's family from others; the rest is the revision."""
    mask: int = identity.get("pvr-mask", VERSION_FIELD)
    return mask


def find_by_pvr(catalogue: Catalogue, pvr: int) -> PvrMatch:
    """The models that `pvr` stands for: `find_by_pvr(framework.catalogue("ppc64"), 0x004e1200)`.

    Raises `NotFoundError` naming the nearest family if no family has it, `ModelError` for a number
    that is no PVR or only a compatibility mode's.
    """
    if not 0 <= pvr <= 0xFFFFFFFF:
        raise ModelError(f"PVR {pvr:#x} does not fit into 32 bits")
    for mode in COMPAT_MODES.values():
        if mode.logical_pvr == pvr:
            raise ModelError(
                f"PVR {pvr:#010x} stands for compatibility mode {mode.name}, not for a processor"
            )
    models = [model for model in catalogue if model.alias_of is None and "pvr" in model.identity]
    exact = tuple(model for model in models if model.identity["pvr"] == pvr)
    if exact:
        return PvrMatch(pvr, exact, True)
    nearest = sorted(models, key=lambda model: _distance(model.identity["pvr"], pvr))
    for model in nearest:
        own = model.identity["pvr"]
        if not (own ^ pvr) & pvr_mask(model.identity):
            same = tuple(other for other in models if other.identity["pvr"] == own)
            return PvrMatch(pvr, same, False)
    hint = ""
    if nearest:
        own, mask = nearest[0].identity["pvr"], pvr_mask(nearest[0].identity)
        hint = f"the nearest family is {nearest[0].family} ({own & mask:#010x}, mask {mask:#010x})"
    raise NotFoundError("PVR", f"{pvr:#010x}", hint=hint)


def _distance(a: int, b: int) -> tuple[int, int]:
    return (a ^ b).bit_length(), abs(a - b)
