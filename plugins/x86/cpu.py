"""The x86 CPU: properties, CPUID synthesis, and its vCPU on KVM."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from cpufw.core.cpu import CPUState
from cpufw.core.features import FeatureSet
from cpufw.core.model import Expansion
from cpufw.core.qom import Property
from cpufw.core.topology import Topology
from cpufw_x86.caches import Cache
from cpufw_x86.cpuid import CpuidTable
from cpufw_x86.cpuid_words import minimum_levels
from cpufw_x86.identity import VENDOR_LENGTH, CpuIdentity
from cpufw_x86.synthesis import CpuidTemplate
from cpufw_x86.words import feature_words

if TYPE_CHECKING:
    from cpufw.core.accel import Accelerator
    from cpufw_x86.pc import PcBoard
    from cpufw_x86.vcpu import PooledVcpu

_UINT32 = 2**32 - 1


def _vendor_problem(vendor: str) -> str | None:
    if len(vendor) == VENDOR_LENGTH:
        return None
    return f"a vendor has exactly {VENDOR_LENGTH} characters"


def _phys_bits_problem(bits: int) -> str | None:
    # 52 is the architecture's limit: Intel SDM vol. 3A, 4.1.4.
    return None if bits == 0 or 32 <= bits <= 52 else "expected 32 to 52, or 0 for the default"


_PROPERTIES = (
    Property("vendor", "string", "CPUID leaf 0's vendor", "", check=_vendor_problem),
    Property("family", "int", "family as CPUID leaf 1 adds it up", 0, 0, 0xF + 0xFF),
    Property("model", "int", "model number within the family", 0, 0, 0xFF),
    Property("stepping", "int", "stepping of the model", 0, 0, 0xF),
    Property("model-id", "string", "the processor's brand string", ""),
    Property("level", "uint32", "the highest basic CPUID leaf", 0, 0, _UINT32),
    Property("xlevel", "uint32", "the highest extended CPUID leaf", 0, 0, _UINT32),
    Property("xlevel2", "uint32", "the highest Centaur CPUID leaf", 0, 0, _UINT32),
    Property(
        "phys-bits", "uint32", "physical address bits", 0, 0, 52, check=_phys_bits_problem
    ),
    Property("avx10-version", "uint32", "version of AVX10", 0, 0, 255),
    Property("l3-cache", "bool", "show a level-3 cache", True),
    Property("kvm", "bool", "let the guest see that it runs on KVM", True),
    Property(
        "x-force-features", "bool", "show features even where the accelerator lacks them", False
    ),
)  # fmt: skip


class X86CPU(CPUState):
    """An x86 vCPU.

    After realize `cpuid` is the table its guest sees (as asked for; `granted` tells what KVM made
    of it) and `vcpu` its vCPU, None without an accelerator.
    """

    type_name = "x86_64-cpu"
    extra_properties: ClassVar[Mapping[str, Property]] = {spec.name: spec for spec in _PROPERTIES}
    always_on = ("hypervisor",)

    cpuid: CpuidTable
    vcpu: PooledVcpu | None = None

    def _synthesise(self) -> None:
        assert self.expansion is not None
        accelerator = self.machine.accelerator if self.machine is not None else None
        self._blueprint = _blueprint(
            self.expansion,
            self.topology,
            accelerator,  # type: ignore[arg-type]  # mypy takes protocols for unhashable
        )
        self.cpuid = self._blueprint.template.for_apic_id(self.arch_id)

    def _accelerate(self) -> FeatureSet:
        assert self.expansion is not None
        features = self.expansion.features
        if self.machine is None or self.machine.accelerator is None:
            return features
        board: PcBoard = self.machine.board  # type: ignore[assignment]
        blueprint = self._blueprint
        pooled = board.pool.take(self.arch_id)
        try:
            pooled.set_cpuid(self.cpuid)
            if blueprint.granted_words is None:
                blueprint.granted_words = pooled.granted_words()
            words = blueprint.granted_words | pooled.set_feature_msrs(blueprint.feature_msrs)
            seen = feature_words(features.table).decode(words)
            self.extra = seen - blueprint.shown - features
        except BaseException:
            board.pool.park(pooled)
            raise
        self.vcpu = pooled
        return seen & features

    def prepare(self, apic_id: int) -> None:
        """Have the vCPU ready that a CPU like this one with that APIC id will need."""
        if self.vcpu is not None and self.machine is not None:
            board: PcBoard = self.machine.board  # type: ignore[assignment]
            board.pool.prepare(apic_id, self._blueprint.template.for_apic_id(apic_id))

    def _release(self) -> None:
        if self.vcpu is not None and self.machine is not None:
            board: PcBoard = self.machine.board  # type: ignore[assignment]
            board.pool.park(self.vcpu)
            self.vcpu = None

    def reset(self) -> None:
        """Bring the vCPU to its power-on state; it must not be running."""
        if self.vcpu is not None:
            self.vcpu.reset()


def identity_of(expansion: Expansion, features: FeatureSet, topology: Topology) -> CpuIdentity:
    """The identity that `expansion` has in `topology` when its guest is shown `features`."""
    values: dict[str, Any] = dict(expansion.identity)
    vendor = values.get("vendor") or "\0" * VENDOR_LENGTH
    words = feature_words(features.table).encode(features)
    levels = minimum_levels(vendor, words, topology)
    level, xlevel = values.get("level", 0), values.get("xlevel", 0)
    xlevel2 = values.get("xlevel2", 0)
    caches = values.get("caches")
    return CpuIdentity(
        vendor=vendor,
        family=values.get("family", 0),
        model=values.get("model", 0),
        stepping=values.get("stepping", 0),
        model_id=values.get("model-id", ""),
        level=max(level, levels.level),
        xlevel=max(xlevel, levels.xlevel),
        xlevel2=max(xlevel2, levels.xlevel2),
        level_func7=levels.level_func7,
        phys_bits=values.get("phys-bits") or default_phys_bits(features),
        words=words,
        caches=tuple(map(Cache.from_mapping, caches)) if caches else None,
        l3_cache=values.get("l3-cache", True),
        avx10_version=values.get("avx10-version", 0),
        kvm=values.get("kvm", True),
    )


class _Blueprint:
    """What all CPUs of one expansion in one topology have in common.

    `shown` are the features that their CPUID shows, those that follow from others included.
    `granted_words` is what KVM granted the first of them: it grants the others the same.
    """

    def __init__(
        self, expansion: Expansion, topology: Topology, accelerator: Accelerator | None
    ) -> None:
        features = expansion.features
        if accelerator is not None and not expansion.identity.get("x-force-features", False):
            features &= accelerator.supported_features(features.table)
        identity = identity_of(expansion, features, topology)
        self.template = CpuidTemplate(identity, topology)
        words = self.template.for_apic_id(0).words()
        self.shown = feature_words(features.table).decode(words)
        self.feature_msrs = {
            int(word.removeprefix("MSR."), 16): value
            for word, value in identity.words.items()
            if word.startswith("MSR.")
        }
        self.granted_words: dict[str, int] | None = None


@lru_cache(maxsize=32)
def _blueprint(
    expansion: Expansion, topology: Topology, accelerator: Accelerator | None
) -> _Blueprint:
    return _Blueprint(expansion, topology, accelerator)


def default_phys_bits(features: FeatureSet) -> int:
    """Physical address bits of a model that does not say: QEMU's rule."""
    if "lm" in features:
        return 40
    return 36 if "pae" in features or "pse36" in features else 32
