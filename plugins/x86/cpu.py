"""The x86 CPU: properties, CPUID synthesis, and its vCPU on KVM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from cpufw.core.cpu import CPUState
from cpufw.core.slot_tree import Node
from cpufw.errors import KvmError, ModelError
from cpufw_x86.configuration import identity_of, settled
from cpufw_x86.properties import PROPERTIES
from cpufw_x86.words import feature_words

if TYPE_CHECKING:
    from cpufw.core.features import FeatureSet
    from cpufw.core.machine import Machine
    from cpufw.core.model import Expansion
    from cpufw.core.qom import Property
    from cpufw.core.topology import Topology
    from cpufw_x86.accelerator import X86KvmAccelerator
    from cpufw_x86.cpuid import CpuidTable
    from cpufw_x86.pc import PcBoard
    from cpufw_x86.vcpu import PooledVcpu, VcpuPool


class X86CPU(CPUState):
    """An x86 vCPU.

    After realize `cpuid` is the table its guest sees (as asked for; `granted` tells what KVM made
    of it) and `vcpu` its vCPU, None without an accelerator.
    """

    type_name = "x86_64-cpu"
    extra_properties: ClassVar[Mapping[str, Property]] = PROPERTIES
    always_on = ("hypervisor",)

    cpuid: CpuidTable
    vcpu: PooledVcpu | None = None

    def expand(self, machine: Machine | None = None) -> Expansion:
        """As in `CPUState`, with what follows from levels, vendor and caches that were given."""
        expansion = super().expand(machine)
        if machine is None:
            return settled(expansion, self._values, None, vendor_of_host=False)
        given = {**machine.compat_values(type(self)), **self._values}
        accelerator: X86KvmAccelerator | None = machine.accelerator  # type: ignore[assignment]
        # Machine types that only describe CPUs do as QEMU's; a guest gets the vendor of its model.
        kind = machine.machine_type
        describes = kind is not None and kind.accel is None
        expansion = settled(expansion, given, accelerator, vendor_of_host=describes)
        offered = [name for name in _offered(machine) if name not in given]
        if not offered:
            return expansion
        features = expansion.features
        return replace(expansion, features=features | features.table.set(offered))

    def _synthesise(self) -> None:
        assert self.expansion is not None
        accelerator = self.machine.accelerator if self.machine is not None else None
        self._blueprint = _blueprint(
            self.expansion,
            self.topology,
            accelerator,  # type: ignore[arg-type]  # mypy takes protocols for unhashable
            _offered(self.machine),
        )
        self.cpuid = self._blueprint.template.for_apic_id(self.arch_id)
        if "apic" in self.expansion.features and self.child("lapic") is None:
            self.add_child("lapic", Node("kvm-apic"))

    def _accelerate(self) -> FeatureSet:
        assert self.expansion is not None
        features = self.expansion.features
        if self.machine is None or self.machine.accelerator is None:
            return features
        blueprint = self._blueprint
        pool: VcpuPool | None = getattr(self.machine.board, "pool", None)
        if pool is None:  # the machine only describes CPUs
            accelerator: X86KvmAccelerator = self.machine.accelerator  # type: ignore[assignment]
            return self._granted(accelerator.granted_words(self.cpuid, blueprint.feature_msrs))
        pooled = pool.take(self.arch_id)
        try:
            pooled.set_up(blueprint.setup, self.cpu_index)
            pooled.set_cpuid(self.cpuid)
            if blueprint.tsc_khz:
                _set_tsc(pooled, blueprint.tsc_khz)
            if blueprint.granted_words is None:
                blueprint.granted_words = pooled.granted_words()
            msrs = pooled.set_feature_msrs(blueprint.feature_msrs)
            granted = self._granted(blueprint.granted_words | msrs)
        except BaseException:
            pool.park(pooled)
            raise
        self.vcpu = pooled
        return granted

    def _granted(self, words: dict[str, int]) -> FeatureSet:
        """What of the features asked for these words show; what else they show is `extra`."""
        assert self.expansion is not None
        features = self.expansion.features
        seen = feature_words(features.table).decode(words)
        self.extra = seen - self._blueprint.shown - features
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
            self.vcpu.reset_partition()


def _set_tsc(pooled: PooledVcpu, khz: int) -> None:
    vcpu = pooled.vcpu
    own = vcpu.get_tsc_khz()
    # Without scaling KVM takes a higher frequency, too, and lets the guest's TSC jump after it.
    scales = vcpu.vm.check_extension("KVM_CAP_TSC_CONTROL")
    if not scales and abs(khz - own) * 1_000_000 > own * _TSC_TOLERANCE:
        raise ModelError(
            f"tsc-frequency={khz}000: this host's TSC runs at {own} kHz and cannot be scaled "
            f"(KVM_CAP_TSC_CONTROL); tsc-frequency={own}000 works, or leave it out"
        )
    try:
        vcpu.set_tsc_khz(khz)
    except KvmError as error:
        reason = f"this host's KVM cannot give a guest that frequency: {error}"
        raise ModelError(f"tsc-frequency={khz}000: {reason}") from None


_TSC_TOLERANCE = 250
"""Parts in a million that KVM takes for the same frequency (its parameter tsc_tolerance_ppm)."""


def _offered(machine: Machine | None) -> tuple[str, ...]:
    """Features that are the board's to give, and not KVM's."""
    board: PcBoard | None = getattr(machine, "board", None)  # none while it is being made
    return getattr(board, "cpu_features", ())


class _Blueprint:
    """What all CPUs of one expansion in one topology have in common.

    `shown` are the features that their CPUID shows, those that follow from others included.
    `granted_words` is what KVM granted the first of them: it grants the others the same.
    """

    def __init__(
        self,
        expansion: Expansion,
        topology: Topology,
        accelerator: X86KvmAccelerator | None,
        offered: tuple[str, ...],
    ) -> None:
        from cpufw_x86.feature_msrs import msr_values
        from cpufw_x86.synthesis import CpuidTemplate
        from cpufw_x86.vcpu_setup import VcpuSetup

        features = expansion.features
        if accelerator is not None and not expansion.identity.get("x-force-features", False):
            table = features.table
            features &= accelerator.supported_features(table) | table.set(offered)
        identity = identity_of(expansion, features, topology, accelerator)
        self.template = CpuidTemplate(identity, topology)
        self.setup = VcpuSetup()
        if accelerator is not None:
            self.setup = VcpuSetup.of(expansion.identity, identity.hyperv, accelerator)
        words = self.template.for_apic_id(0).words()
        self.shown = feature_words(features.table).decode(words)
        host_msrs = accelerator.feature_msrs if accelerator is not None else {}
        self.feature_msrs = msr_values(identity.words, host_msrs)
        self.tsc_khz: int = expansion.identity.get("tsc-frequency", 0) // 1000
        self.granted_words: dict[str, int] | None = None


@lru_cache(maxsize=32)
def _blueprint(
    expansion: Expansion,
    topology: Topology,
    accelerator: X86KvmAccelerator | None,
    offered: tuple[str, ...],
) -> _Blueprint:
    return _Blueprint(expansion, topology, accelerator, offered)
