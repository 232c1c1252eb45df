"""The ids of Arm's system registers in KVM: Linux Documentation/virt/kvm/api.rst, 4.68."""

from __future__ import annotations

from collections.abc import Mapping

_ARM64_SYS_REG_U64 = 0x6030_0000_0013_0000
"""KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG."""


def sysreg_id(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """KVM's id of the 64-bit system register with this encoding (Arm ARM, DDI 0487, D22.3)."""
    return _ARM64_SYS_REG_U64 | op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


# The ID registers of AArch64 have op0 3, op1 0 and CRn 0: CRm and op2 of each (DDI 0487, D22.3.1).
_ID_SPACE = {
    "ID_AA64PFR0_EL1": (4, 0),
    "ID_AA64PFR1_EL1": (4, 1),
    "ID_AA64ZFR0_EL1": (4, 4),
    "ID_AA64SMFR0_EL1": (4, 5),
    "ID_AA64DFR0_EL1": (5, 0),
    "ID_AA64ISAR0_EL1": (6, 0),
    "ID_AA64ISAR1_EL1": (6, 1),
    "ID_AA64ISAR2_EL1": (6, 2),
    "ID_AA64MMFR0_EL1": (7, 0),
    "ID_AA64MMFR1_EL1": (7, 1),
    "ID_AA64MMFR2_EL1": (7, 2),
    "ID_AA64MMFR3_EL1": (7, 3),
}

SYSREG_IDS: Mapping[str, int] = {
    name: sysreg_id(3, 0, 0, crm, op2) for name, (crm, op2) in _ID_SPACE.items()
}
"""KVM's ids of the feature registers that user space may set before a vCPU runs."""
