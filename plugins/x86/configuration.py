"""From a model and its settings to the identity that CPUID is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cpufw.errors import ModelError
from cpufw_x86.properties import AUTOMATIC, LBR_FORMATS, LEVELS, NO_LBR_FORMAT, address_bits

if TYPE_CHECKING:  # expanding a model must not cost the import of what makes CPUID
    from cpufw.core.features import FeatureSet
    from cpufw.core.model import Expansion
    from cpufw.core.topology import Topology
    from cpufw_x86.accelerator import X86KvmAccelerator
    from cpufw_x86.cpuid import Registers
    from cpufw_x86.cpuid_words import Levels
    from cpufw_x86.identity import CpuIdentity

_PERF_CAPABILITIES = "MSR.345"
EXACT = "exact-levels"
"""In an expansion's identity: the limits of CPUID's ranges that features do not raise."""


def settled(
    expansion: Expansion,
    given: Mapping[str, Any],
    accelerator: X86KvmAccelerator | None,
    vendor_of_host: bool,
) -> Expansion:
    """`expansion` with what follows from the settings `given` by the user or the machine type.

    A level that was given is exact. With `vendor_of_host` a named model has the vendor of the
    accelerator's host, as on QEMU with KVM. Raises `ModelError` for settings that the model
    cannot have.
    """
    model, identity, features = expansion.model, dict(expansion.identity), expansion.features
    exact = [name for name in LEVELS if given.get(name, AUTOMATIC) != AUTOMATIC]
    if exact:
        identity[EXACT] = " ".join(exact)
    if given.get("legacy-cache") is False and not identity.get("caches"):
        raise ModelError(f"{model.name} has no caches of its own, so legacy-cache=off cannot be")
    if accelerator is not None:
        named = not (model.static or model.dynamic)
        if vendor_of_host and named and not given.get("vendor"):
            identity["vendor"] = accelerator.host_identity()["vendor"]
        if model.dynamic and not given.get("phys-bits"):
            identity["host-phys-bits"] = True
        if model.dynamic and given.get("migratable") is False:
            supported = accelerator.supported_features(features.table)
            features |= supported & features.table.unmigratable
    return replace(expansion, identity=identity, features=features)


def identity_of(
    expansion: Expansion,
    features: FeatureSet,
    topology: Topology,
    accelerator: X86KvmAccelerator | None = None,
) -> CpuIdentity:
    """The identity that `expansion` has in `topology` when its guest is shown `features`."""
    from cpufw_x86.caches import Cache
    from cpufw_x86.hyperv import hyperv_of
    from cpufw_x86.identity import VENDOR_LENGTH, CpuIdentity
    from cpufw_x86.words import feature_words

    values: Mapping[str, Any] = expansion.identity
    vendor = values.get("vendor") or "\0" * VENDOR_LENGTH
    words = feature_words(features.table)
    shown = words.encode(features)
    lbr_format = _lbr_format(values, accelerator)
    if lbr_format:
        shown[_PERF_CAPABILITIES] = shown.get(_PERF_CAPABILITIES, 0) | lbr_format
    levels = _levels(values, vendor, words.encode(expansion.features), topology)
    host_bits = accelerator.host_identity()["phys-bits"] if accelerator is not None else None
    phys_bits, guest_phys_bits = address_bits(values, features, host_bits)
    caches = None if values.get("legacy-cache") else values.get("caches")
    return CpuIdentity(
        vendor=vendor,
        family=values.get("family", 0),
        model=values.get("model", 0),
        stepping=values.get("stepping", 0),
        model_id=values.get("model-id", ""),
        level=levels.level,
        xlevel=levels.xlevel,
        xlevel2=levels.xlevel2,
        level_func7=levels.level_func7,
        phys_bits=phys_bits,
        guest_phys_bits=guest_phys_bits,
        words=shown,
        caches=tuple(map(Cache.from_mapping, caches)) if caches else None,
        l3_cache=values.get("l3-cache", True),
        avx10_version=values.get("avx10-version", 0),
        cpuid_0xb=values.get("cpuid-0xb", True),
        kvm=values.get("kvm", True),
        vendor_leaves_only=values.get("x-vendor-cpuid-only", True),
        l1_cache_per_thread=values.get("x-l1-cache-per-thread", True),
        complex_indexing_hidden=values.get("x-amd-topoext-features-only", True),
        dies_are_nodes=values.get("legacy-multi-node", False),
        pmu=values.get("pmu", False),
        counters=_counters(values, accelerator),
        tsc_khz=_told_tsc_khz(values, features, accelerator),
        hyperv=hyperv_of(values, accelerator),
    )


def _levels(
    values: Mapping[str, Any], vendor: str, words: Mapping[str, int], topology: Topology
) -> Levels:
    """The limits of CPUID's ranges: what was given, or what the model has and features need."""
    from cpufw_x86.cpuid_words import Levels, minimum_levels
    from cpufw_x86.identity import INTEL

    needed = minimum_levels(
        INTEL if not values.get("x-vendor-cpuid-only", True) else vendor,
        words,
        topology,
        every_feature=values.get("full-cpuid-auto-level", True),
        processor_trace=values.get("x-intel-pt-auto-level", True),
    )
    exact = values.get(EXACT, "").split()

    def limit(name: str, automatic: int) -> int:
        own: int = values.get(name, 0)
        return own if name in exact else max(values.get(f"min-{name}", own), automatic)

    return Levels(
        limit("level", needed.level),
        values["level-func7"] if "level-func7" in exact else needed.level_func7,
        limit("xlevel", needed.xlevel),
        limit("xlevel2", needed.xlevel2),
    )


def _counters(values: Mapping[str, Any], accelerator: X86KvmAccelerator | None) -> Registers:
    """Leaf 0xA: the host's, where a guest may use its performance counters."""
    if not values.get("pmu") or accelerator is None:
        return 0, 0, 0, 0
    return accelerator.cpuid.lookup(0xA)


def _lbr_format(values: Mapping[str, Any], accelerator: X86KvmAccelerator | None) -> int:
    """The format of last-branch records that was asked for; a guest can only have the host's.

    (IA32_PERF_CAPABILITIES bits 5:0, Intel SDM vol. 3B, 18.4.8)
    """
    wanted: int = values.get("lbr-fmt", NO_LBR_FORMAT)
    if wanted in (0, NO_LBR_FORMAT):
        return 0
    if not values.get("pmu"):
        raise ModelError(f"lbr-fmt={wanted:#x} needs the performance counters: set pmu=on, too")
    if accelerator is not None:
        own = accelerator.feature_msrs.get(0x345, 0) & LBR_FORMATS
        if own != wanted:
            raise ModelError(
                f"lbr-fmt={wanted:#x}: this host's KVM has format {own:#x} "
                "(IA32_PERF_CAPABILITIES bits 5:0), and a guest can have no other"
            )
    return wanted


def _told_tsc_khz(
    values: Mapping[str, Any], features: FeatureSet, accelerator: X86KvmAccelerator | None
) -> int:
    """The TSC's frequency where it is sure to stay: given by the user, or invariant."""
    if accelerator is None or not values.get("vmware-cpuid-freq", True):
        return 0
    given: int = values.get("tsc-frequency", 0) // 1000
    return given or (accelerator.tsc_khz if "invtsc" in features else 0)
