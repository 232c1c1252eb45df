"""Laws between feature words: what follows from vendor, features and topology."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cpufw.core.topology import Topology, TopologyLevel
from cpufw_x86.apicid import ApicIdLayout
from cpufw_x86.cpuid import CENTAUR_BASE, EXTENDED_BASE, HYPERVISOR_BASE, word_place
from cpufw_x86.identity import AMD, CENTAUR, INTEL, SHANGHAI
from cpufw_x86.xsave import xcr0_mask, xss_mask

HTT = 1 << 28
"""1.EDX: the package holds more than one logical processor."""
CMP_LEGACY = 1 << 1
"""80000001.ECX: the same, for AMD; where Linux sees it, it ignores leaf 0xB."""
SVM = 1 << 2
"""80000001.ECX: secure virtual machine; leaf 0x8000000A describes it."""
SGX = 1 << 2
"""7.0.EBX: software guard extensions; leaf 0x12 describes them."""
INTEL_PT = 1 << 25
"""7.0.EBX: processor trace; leaf 0x14 describes it."""
AVX10 = 1 << 19
"""7.1.EDX: leaf 0x24 tells the version and the vector lengths."""

AMD_SHARED_FEATURES = 0x0183F3FD
"""The bits of 1.EDX that an AMD CPU repeats in 80000001.EDX (AMD APM vol. 3, Fn8000_0001_EDX).

VME (bit 1) is one of them in the manual but not in the reference, which this follows.
"""

MULTI_DIE_LEVEL = 0x1F

_NO_LEVEL = frozenset(
    {"7.0.EDX", "D.0.EAX", "D.0.EDX", "12.0.EAX", "12.0.EBX", "12.1.EAX", "14.0.ECX", "24.0.EBX"}
    | {"80000007.EBX", "8000000A.EDX", "80000021.EBX", "80000022.EAX"}
)
"""The words that raise no level on QEMU; of some leaves the feature that brings them does."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Limits of leaves 0, 7, 0x80000000 and 0xC0000000; 0 where none is needed."""

    level: int = 0
    level_func7: int = 0
    xlevel: int = 0
    xlevel2: int = 0


def derived_words(vendor: str, words: Mapping[str, int]) -> dict[str, int]:
    """`words` with the bits set that follow from others; words that are zero are left out.

    An AMD CPU repeats some of 1.EDX in 80000001.EDX. Leaf 0xD's component masks follow from the
    features that have state to save.
    """
    derived = dict(words)
    if vendor == AMD:
        own = words.get("80000001.EDX", 0) & ~AMD_SHARED_FEATURES
        derived["80000001.EDX"] = own | words.get("1.EDX", 0) & AMD_SHARED_FEATURES
    for low, high, mask in (
        ("D.0.EAX", "D.0.EDX", xcr0_mask(words)),
        ("D.1.ECX", "D.1.EDX", xss_mask(words)),
    ):
        derived[low], derived[high] = mask & 0xFFFFFFFF, mask >> 32
    return {name: value for name, value in derived.items() if value}


def topology_words(vendor: str, words: Mapping[str, int], topology: Topology) -> dict[str, int]:
    """`words` with the bits set that say how many logical processors a package holds."""
    if ApicIdLayout.of(topology).threads_per(TopologyLevel.SOCKET) == 1:
        return dict(words)
    added = {"1.EDX": HTT}
    if vendor not in (INTEL, CENTAUR, SHANGHAI):
        added["80000001.ECX"] = CMP_LEGACY
    return {**words, **{name: words.get(name, 0) | bit for name, bit in added.items()}}


def is_multi_die(layout: ApicIdLayout) -> bool:
    """Whether packages hold several dies or modules, which leaf 0xB cannot tell but 0x1F can."""
    return layout.count(TopologyLevel.DIE) > 1 or layout.count(TopologyLevel.MODULE) > 1


def minimum_levels(
    vendor: str,
    words: Mapping[str, int],
    topology: Topology | None = None,
    *,
    every_feature: bool = True,
    processor_trace: bool = True,
) -> Levels:
    """The lowest limits that let a guest see all of `words` and, for Intel, all of `topology`.

    Without `every_feature` only leaf 7's features count, without `processor_trace` leaf 0x14 does
    not: so it was on QEMU's older machine types.
    """
    if topology:
        words = topology_words(vendor, words, topology)
    basic = {0}
    extended = {0}
    centaur = {0}
    func7 = {0}
    for name, value in words.items():
        if not value or name in _NO_LEVEL or name.startswith("MSR."):
            continue
        function, index, _ = word_place(name)
        if not every_feature and (function, index) != (7, 0):
            continue
        if function >= CENTAUR_BASE:
            centaur.add(function)
        elif function >= EXTENDED_BASE:
            extended.add(function)
        elif function < HYPERVISOR_BASE:
            basic.add(function)
            if function == 7:
                func7.add(index)
    if every_feature and words.get("7.0.EBX", 0) & SGX:
        basic.add(0x12)
    if processor_trace and words.get("7.0.EBX", 0) & INTEL_PT:
        basic.add(0x14)
    if every_feature and words.get("7.1.EDX", 0) & AVX10:
        basic.add(0x24)
    if every_feature and words.get("80000001.ECX", 0) & SVM:
        extended.add(0x8000000A)
    if every_feature and vendor == INTEL and topology and is_multi_die(ApicIdLayout.of(topology)):
        basic.add(MULTI_DIE_LEVEL)
    return Levels(max(basic), max(func7), max(extended), max(centaur))
