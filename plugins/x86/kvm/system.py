"""What an x86 host's KVM supports."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from cpufw.errors import KvmError
from cpufw.kvm import KVM

from .cpuid import CpuidEntry, read_entries
from .msrs import read_msrs
from .native import ffi, lib
from .vm import X86VM


class X86KVM(KVM):
    """The KVM device of an x86 host; its VMs are `X86VM`s."""

    vm_class = X86VM

    def create_vm(self) -> X86VM:
        """An empty VM (KVM_CREATE_VM)."""
        vm = super().create_vm()
        assert isinstance(vm, X86VM)
        return vm

    def get_supported_cpuid(self) -> tuple[CpuidEntry, ...]:
        """The CPUID that KVM can give a guest on this host (KVM_GET_SUPPORTED_CPUID)."""
        name, request = "KVM_GET_SUPPORTED_CPUID", lib.KVM_GET_SUPPORTED_CPUID
        return read_entries(lambda table: self.ioctl(name, request, table))

    def get_supported_hv_cpuid(self) -> tuple[CpuidEntry, ...]:
        """Hyper-V's leaves as KVM can offer them (KVM_GET_SUPPORTED_HV_CPUID).

        Before Linux 5.11 only a vCPU can say so.
        """
        if not self.check_extension("KVM_CAP_SYS_HYPERV_CPUID"):
            with self.create_vm() as vm:
                vm.create_irqchip()
                with vm.create_vcpu(0) as vcpu:
                    return vcpu.get_supported_hv_cpuid()
        name, request = "KVM_GET_SUPPORTED_HV_CPUID", lib.KVM_GET_SUPPORTED_HV_CPUID
        return read_entries(lambda table: self.ioctl(name, request, table))

    def get_mce_cap_supported(self) -> int:
        """What IA32_MCG_CAP can say to a guest (KVM_X86_GET_MCE_CAP_SUPPORTED)."""
        value = ffi.new("__u64 *")
        name = "KVM_X86_GET_MCE_CAP_SUPPORTED"
        self.ioctl(name, lib.KVM_X86_GET_MCE_CAP_SUPPORTED, value)
        return int(value[0])

    def get_emulated_cpuid(self) -> tuple[CpuidEntry, ...]:
        """Features that KVM emulates where the host lacks them (KVM_GET_EMULATED_CPUID)."""
        name, request = "KVM_GET_EMULATED_CPUID", lib.KVM_GET_EMULATED_CPUID
        return read_entries(lambda table: self.ioctl(name, request, table))

    def get_msr_index_list(self) -> tuple[int, ...]:
        """The MSRs that are a vCPU's state, to save and restore (KVM_GET_MSR_INDEX_LIST)."""
        return self._msr_list("KVM_GET_MSR_INDEX_LIST", lib.KVM_GET_MSR_INDEX_LIST)

    def get_msr_feature_index_list(self) -> tuple[int, ...]:
        """The MSRs that describe features (KVM_GET_MSR_FEATURE_INDEX_LIST)."""
        return self._msr_list("KVM_GET_MSR_FEATURE_INDEX_LIST", lib.KVM_GET_MSR_FEATURE_INDEX_LIST)

    def get_feature_msrs(self, indices: Iterable[int] | None = None) -> dict[int, int]:
        """What KVM can give a guest in each feature MSR; by default in all (KVM_GET_MSRS)."""
        return read_msrs(self, self.get_msr_feature_index_list() if indices is None else indices)

    def _msr_list(self, name: str, request: int) -> tuple[int, ...]:
        size = 0
        while True:
            found = ffi.new("struct kvm_msr_list *", {"nmsrs": size, "indices": size})
            try:
                self.ioctl(name, request, found)
            except KvmError as error:
                if error.errno != errno.E2BIG or found.nmsrs <= size:
                    raise
                size = found.nmsrs
                continue
            return tuple(found.indices[0 : found.nmsrs])
