"""Which MSRs are a vCPU's state, read and written as one."""

from __future__ import annotations

from cpufw.errors import KvmError, StateError
from cpufw_x86.hyperv import PROCESSOR_MSRS
from cpufw_x86.kvm import X86KVM, X86VCPU

TSC, TSC_DEADLINE = 0x10, 0x6E0

# State that KVM_GET_MSR_INDEX_LIST leaves out (Intel SDM vol. 4, table 2-2).
_MTRRS = (0x2FF, 0x250, 0x258, 0x259, *range(0x268, 0x270), *range(0x200, 0x210))
_SCONTROL = 0x40000080  # of the MSRs of Hyper-V's synthetic interrupts and timers some are listed
_MCG_CAP, _MACHINE_CHECK_BANKS, _BANK_MSRS = 0x179, 0x400, 4


class MsrList:
    """The MSRs to save of the vCPUs of a VM, which are all alike: those that this KVM reads.

    What describes features is not among them: it comes with the CPU model.
    """

    def __init__(self, kvm: X86KVM) -> None:
        described = set(kvm.get_msr_feature_index_list())
        listed = (index for index in kvm.get_msr_index_list() if index not in described)
        self._candidates = dict.fromkeys((*listed, *_MTRRS, TSC, TSC_DEADLINE))
        if _SCONTROL in self._candidates:
            self._candidates |= dict.fromkeys(PROCESSOR_MSRS)
        self._readable: tuple[int, ...] | None = None

    def read(self, vcpu: X86VCPU) -> dict[int, int]:
        """The MSRs of a vCPU."""
        if self._readable is None:
            banks = vcpu.get_known_msrs([_MCG_CAP]).get(_MCG_CAP, 0) & 0xFF
            machine_checks = range(_MACHINE_CHECK_BANKS, _MACHINE_CHECK_BANKS + _BANK_MSRS * banks)
            values = vcpu.get_known_msrs((*self._candidates, *machine_checks))
            self._readable = tuple(values)
            return values
        return vcpu.get_msrs(self._readable)


def write_changed(vcpu: X86VCPU, values: dict[int, int]) -> None:
    """Give `vcpu` these MSRs, those apart that it has already.

    Raises `StateError` for one that is not 0 and that this KVM does not take.
    """
    now = vcpu.get_known_msrs(values)
    changed = {index: value for index, value in values.items() if now.get(index, 0) != value}
    try:
        vcpu.set_msrs(changed)
    except KvmError as error:
        raise StateError(f"this host's KVM cannot give a CPU its saved state: {error}") from None
