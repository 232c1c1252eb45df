"""What a vCPU is told beside CPUID and features' MSRs: KVM capabilities that are one vCPU's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpufw.errors import ModelError

if TYPE_CHECKING:
    from cpufw_x86.accelerator import X86KvmAccelerator
    from cpufw_x86.hyperv import HyperV
    from cpufw_x86.kvm import X86VCPU

_MCG_CAP, _LOCAL_MACHINE_CHECKS = 0x179, 1 << 27  # MCG_LMCE_P (Intel SDM vol. 3B, 16.3.1.1)
_MICROCODE_REVISION = 0x8B  # IA32_BIOS_SIGN_ID; the revision is its upper half
_HYPERV = "KVM_CAP_HYPERV_CPUID"
_PV_ENFORCED = "KVM_CAP_ENFORCE_PV_FEATURE_CPUID"


def capabilities_of(values: Mapping[str, Any]) -> dict[str, str]:
    """The KVM_CAP_* that these settings need, by setting."""
    from cpufw_x86.hyperv import ALIASES, ENLIGHTENMENTS

    found = {
        name: ENLIGHTENMENTS[ALIASES.get(name, name)].capability or _HYPERV
        for name in (*ENLIGHTENMENTS, *ALIASES)
        if values.get(name)
    }
    for name, capability in (
        ("hv-passthrough", _HYPERV),
        ("hv-enforce-cpuid", "KVM_CAP_HYPERV_ENFORCE_CPUID"),
        ("kvm-pv-enforce-cpuid", _PV_ENFORCED),
    ):
        if values.get(name):
            found[name] = capability
    return found


@dataclass(frozen=True, slots=True)
class VcpuSetup:
    """The settings of a CPU that its vCPU must be told.

    `microcode` is what IA32_BIOS_SIGN_ID holds, 0 for what KVM says. `kvm_enforced`: the guest
    has KVM's own features only where its CPUID shows them.
    """

    hyperv: HyperV | None = None
    local_machine_checks: bool = False
    microcode: int = 0
    kvm_enforced: bool = False

    @classmethod
    def of(
        cls, values: Mapping[str, Any], hyperv: HyperV | None, accelerator: X86KvmAccelerator
    ) -> VcpuSetup:
        """Raises `ModelError` for what this KVM does not have, by the setting's name."""
        if values.get("kvm-pv-enforce-cpuid"):
            accelerator.require("kvm-pv-enforce-cpuid", _PV_ENFORCED)
        if values.get("lmce"):
            supported = accelerator.kvm.get_mce_cap_supported()
            if not supported & _LOCAL_MACHINE_CHECKS:
                raise ModelError(
                    "lmce: this host's KVM has no local machine checks "
                    f"(KVM_X86_GET_MCE_CAP_SUPPORTED is {supported:#x}, without bit 27)"
                )
        return cls(
            hyperv,
            bool(values.get("lmce")),
            values.get("ucode-rev", 0),
            bool(values.get("kvm-pv-enforce-cpuid")),
        )

    def apply(self, vcpu: X86VCPU, index: int) -> None:
        """Tell a vCPU that has not run; it is the machine's CPU `index`."""
        if self.hyperv is not None:
            self.hyperv.enable(vcpu, index)
        if self.local_machine_checks:
            vcpu.setup_mce(vcpu.get_msrs([_MCG_CAP])[_MCG_CAP] | _LOCAL_MACHINE_CHECKS)
        if self.microcode:
            vcpu.set_msrs({_MICROCODE_REVISION: self.microcode})
        if self.kvm_enforced:
            vcpu.enable_cap(_PV_ENFORCED, 1)
