"""Who a CPU says it is: everything its CPUID depends on apart from its place in the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from cpufw.errors import ModelError
from cpufw_x86.caches import Cache

if TYPE_CHECKING:
    from cpufw_x86.hyperv import HyperV

INTEL = "GenuineIntel"
AMD = "AuthenticAMD"
CENTAUR = "CentaurHauls"
SHANGHAI = "  Shanghai  "

VENDOR_LENGTH = 12
BRAND_LENGTH = 48


@dataclass(frozen=True, slots=True)
class CpuIdentity:
    """One finished CPU model, versions, compat properties and the user's settings applied.

    `words` are the feature words by name (`"7.0.EBX"`); words that are not CPUID's are ignored.
    `caches` None gives the legacy caches. `level`, `level_func7`, `xlevel` and `xlevel2` are the
    limits of leaves 0, 7, 0x80000000 and 0xC0000000 and are taken as they are
    (`cpuid_words.minimum_levels` tells what the features need). `kvm` is whether the guest may
    know that it runs on KVM. `pmu` is whether it may use performance
    counters and `counters` is then leaf 0xA; `tsc_khz` the frequency that a guest of KVM
    is told, 0 for none. `hyperv` is the Hyper-V that it sees beside KVM. The others are how
    QEMU's older machine types differ: `vendor_leaves_only` hides leaves that the vendor's CPUs
    lack, `l1_cache_per_thread` has the threads of a core share the level 1 caches in leaf 4,
    `complex_indexing_hidden` keeps leaf 4's flag of that name out of leaf 0x8000001D,
    `dies_are_nodes` counts dies as nodes in leaf 0x8000001E.
    """

    vendor: str
    family: int
    model: int
    stepping: int
    model_id: str
    level: int
    xlevel: int
    phys_bits: int
    words: Mapping[str, int] = field(hash=False)
    xlevel2: int = 0
    level_func7: int = 0
    guest_phys_bits: int = 0
    caches: tuple[Cache, ...] | None = None
    l3_cache: bool = True
    avx10_version: int = 0
    cpuid_0xb: bool = True
    kvm: bool = True
    vendor_leaves_only: bool = True
    l1_cache_per_thread: bool = True
    complex_indexing_hidden: bool = True
    dies_are_nodes: bool = False
    pmu: bool = False
    counters: tuple[int, int, int, int] = (0, 0, 0, 0)
    tsc_khz: int = 0
    hyperv: HyperV | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", MappingProxyType(dict(self.words)))
        _check_text("vendor", self.vendor)
        _check_text("model-id", self.model_id)
        if len(self.vendor) != VENDOR_LENGTH:
            raise ModelError(
                f"vendor '{self.vendor}' has {len(self.vendor)} characters; "
                f"CPUID holds exactly {VENDOR_LENGTH}, as in {INTEL}"
            )
        if len(self.model_id) > BRAND_LENGTH:
            raise ModelError(
                f"model-id '{self.model_id}' has {len(self.model_id)} characters; "
                f"CPUID holds at most {BRAND_LENGTH}"
            )
        for name, value, limit in (
            ("family", self.family, 0xF + 0xFF),
            ("model", self.model, 0xFF),
            ("stepping", self.stepping, 0xF),
        ):
            if not 0 <= value <= limit:
                raise ModelError(f"{name} {value} does not fit CPUID; expected 0 to {limit}")

    @property
    def signature(self) -> int:
        """Family, model and stepping as in leaf 1's EAX (Intel SDM vol. 2A, CPUID, figure 3-6)."""
        family, extended_family = min(self.family, 0xF), max(self.family - 0xF, 0)
        return (
            self.stepping
            | (self.model & 0xF) << 4
            | family << 8
            | (self.model >> 4) << 16
            | extended_family << 20
        )


def _check_text(name: str, text: str) -> None:
    if not text.isascii():
        raise ModelError(f"{name} '{text}' is not ASCII text, which is all that CPUID can hold")
