"""KVM as the accelerator of x86 guests: what it can give, by feature name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from cpufw.core.features import FeatureSet, FeatureTable
from cpufw.errors import KvmError, ModelError
from cpufw_x86.cpuid import CpuidLeaf, CpuidTable
from cpufw_x86.feature_msrs import feature_words_of
from cpufw_x86.kvm import X86KVM, CpuidEntry
from cpufw_x86.words import feature_words

# What a PC needs of KVM (Linux Documentation/virt/kvm/api.rst).
_NEEDED = (
    "KVM_CAP_IRQCHIP",
    "KVM_CAP_USER_MEMORY",
    "KVM_CAP_SET_TSS_ADDR",
    "KVM_CAP_EXT_CPUID",
    "KVM_CAP_MP_STATE",
    "KVM_CAP_PIT2",
    "KVM_CAP_IMMEDIATE_EXIT",
)

# Features that KVM_GET_SUPPORTED_CPUID leaves out although KVM gives them.
_EMULATED_ALWAYS = ("hypervisor", "x2apic", "arat")  # by the in-kernel local APIC

# What KVM turns on in every named model, and what it cannot give one (as QEMU does on KVM).
DEFAULT_ON = (
    "kvmclock",
    "kvm-nopiodelay",
    "kvm-asyncpf",
    "kvm-steal-time",
    "kvm-pv-eoi",
    "kvmclock-stable-bit",
    "x2apic",
)
DEFAULT_OFF = ("acpi", "monitor", "svm")

# Paravirtual features that a guest would call with vmcall, which never returns on the PVM back
# end (measured): not offered where the host has neither VMX nor SVM.
_NEED_HYPERCALLS = ("kvm-pv-unhalt", "kvm-pv-ipi", "kvm-pv-sched-yield")


class X86KvmAccelerator:
    """An opened /dev/kvm. Raises `KvmError` if it lacks a capability that a PC needs."""

    name = "kvm"

    def __init__(self, path: str = "/dev/kvm") -> None:
        self.kvm = X86KVM(path)
        missing = [cap for cap in _NEEDED if not self.kvm.check_extension(cap)]
        if missing:
            self.kvm.close()
            raise KvmError(f"{path} lacks {', '.join(missing)}, which a PC needs")
        self._supported: dict[int, FeatureSet] = {}

    @cached_property
    def cpuid(self) -> CpuidTable:
        """The CPUID that KVM supports for guests (KVM_GET_SUPPORTED_CPUID)."""
        return CpuidTable(map(_leaf, self.kvm.get_supported_cpuid()))

    @cached_property
    def hardware_virtualization(self) -> bool:
        """Whether the host has VMX or SVM; KVM works without them only as PVM."""
        try:
            text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
        except OSError:
            return True
        flags = next((line for line in text.splitlines() if line.startswith("flags")), "vmx svm")
        return bool({"vmx", "svm"} & set(flags.split()))

    def capabilities(self) -> Mapping[str, int]:
        """Each KVM_CAP_* and its value."""
        return self.kvm.capabilities()

    def supported_features(self, table: FeatureTable) -> FeatureSet:
        """Every feature that KVM can give a guest on this host."""
        found = self._supported.get(id(table))
        if found is None:
            words = self.cpuid.words() | feature_words_of(self.feature_msrs)
            found = feature_words(table).decode(words)
            found |= table.set(name for name in _EMULATED_ALWAYS if name in table)
            if self.kvm.check_extension("KVM_CAP_TSC_DEADLINE_TIMER"):
                found |= table.set(["tsc-deadline"])
            if not self.hardware_virtualization:
                found -= table.set(_NEED_HYPERCALLS)
            self._supported[id(table)] = found
        return found

    @cached_property
    def hyperv(self) -> CpuidTable | None:
        """Hyper-V's CPUID leaves with all that KVM can offer of it; None where it has none."""
        needed = ("KVM_CAP_HYPERV", "KVM_CAP_HYPERV_CPUID")
        if not all(map(self.kvm.check_extension, needed)):
            return None
        return CpuidTable(map(_leaf, self.kvm.get_supported_hv_cpuid()))

    def require(self, setting: str, capability: str) -> None:
        """Raise `ModelError` if KVM lacks the capability that `setting` needs."""
        if not self.kvm.check_extension(capability):
            raise ModelError(f"{setting}: this host's KVM has no {capability}")

    @cached_property
    def feature_msrs(self) -> Mapping[int, int]:
        """The MSRs of features that KVM supports, and what they hold (KVM_GET_MSRS)."""
        values: dict[int, int] = {}
        for index in self.kvm.get_msr_feature_index_list():
            # Listed, yet not readable on this host: then not supported.
            with suppress(KvmError):
                values |= self.kvm.get_feature_msrs([index])
        return values

    def host_identity(self) -> Mapping[str, Any]:
        """Vendor, family, model, stepping, brand string and leaf limits of this host."""
        return identity_of_table(self.cpuid)

    def default_features(self, table: FeatureTable) -> tuple[FeatureSet, FeatureSet]:
        """What KVM turns on and off on every named model."""
        return table.set(DEFAULT_ON), table.set(DEFAULT_OFF)

    def granted_words(self, table: CpuidTable, msrs: Mapping[int, int]) -> dict[str, int]:
        """The feature words that KVM makes of `table` and feature `msrs`, on a vCPU for that alone.

        MSRs that KVM refuses are left out.
        """
        from cpufw_x86.vcpu import PooledVcpu, PowerOnState

        with self.kvm.create_vm() as vm:
            vm.create_irqchip()
            with vm.create_vcpu(0) as vcpu:
                pooled = PooledVcpu(vcpu, PowerOnState.of(vcpu))
                pooled.set_cpuid(table)
                return pooled.granted_words() | pooled.set_feature_msrs(msrs)

    @cached_property
    def tsc_khz(self) -> int:
        """The frequency of a guest's time-stamp counter, unless it asks for another."""
        with self.kvm.create_vm() as vm, vm.create_vcpu(0) as vcpu:
            return vcpu.get_tsc_khz()

    def close(self) -> None:
        """Close /dev/kvm."""
        self.kvm.close()


def _leaf(entry: CpuidEntry) -> CpuidLeaf:
    return CpuidLeaf(entry.function, entry.index, entry.eax, entry.ebx, entry.ecx, entry.edx)


def identity_of_table(table: CpuidTable) -> dict[str, Any]:
    """The identity values that a CPUID table shows (Intel SDM vol. 2A, CPUID, leaves 0, 1).

    Zhaoxin has an extended model in family 7 as well.
    """
    level, ebx, ecx, edx = table.lookup(0)
    signature = table.lookup(1)[0]
    family, model = signature >> 8 & 0xF, signature >> 4 & 0xF
    if family >= 0x6:
        model |= (signature >> 16 & 0xF) << 4
    if family == 0xF:
        family += signature >> 20 & 0xFF
    xlevel = table.lookup(0x80000000)[0]
    brand = b"".join(
        register.to_bytes(4, "little")
        for leaf in (0x80000002, 0x80000003, 0x80000004)
        for register in (table.lookup(leaf) if xlevel >= leaf else ())
    )
    return {
        "vendor": b"".join(r.to_bytes(4, "little") for r in (ebx, edx, ecx)).decode("latin-1"),
        "family": family,
        "model": model,
        "stepping": signature & 0xF,
        "level": level,
        "xlevel": xlevel,
        "model-id": brand.split(b"\0")[0].decode("latin-1").strip(),
        "phys-bits": table.lookup(0x80000008)[0] & 0xFF if xlevel >= 0x80000008 else 36,
    }
