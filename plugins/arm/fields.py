"""The fields of Arm ID registers: where they are, and which of two values asks more of a host.

Layouts are those of the Arm ARM (DDI 0487, D24.2 and G8.2), written from the lowest bits up.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cache


class Order(enum.Enum):
    """How the values of a field are ordered from what asks least of a host to what asks most.

    By the Arm ARM's principles of the ID scheme (DDI 0487, D24.1) a higher value is more:
    `UNSIGNED`, or `SIGNED`, where all ones means none at all. `EXACT` values cannot stand in for
    one another. Of `GRANULE` values a higher one is less, and zero, which says nothing, least.
    `MASK` has a bit for each thing.
    """

    UNSIGNED = "unsigned"
    SIGNED = "signed"
    EXACT = "exact"
    GRANULE = "granule"
    MASK = "mask"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an ID register: `name` is `ID_AA64PFR0_EL1.SVE`."""

    name: str
    low: int
    width: int = 4
    order: Order = Order.UNSIGNED

    @property
    def register(self) -> str:
        """The name of its register."""
        return self.name.partition(".")[0].partition("[")[0]

    def get(self, value: int) -> int:
        """The field's value in a register's `value`."""
        return value >> self.low & (1 << self.width) - 1

    def put(self, value: int, field: int) -> int:
        """The register's `value` with this field changed."""
        return value & ~((1 << self.width) - 1 << self.low) | field << self.low

    def demand(self, value: int) -> int:
        """How much a field `value` asks of a host; of ordered fields only."""
        if self.order is Order.SIGNED and value >> self.width - 1:
            return value - (1 << self.width)
        if self.order is Order.GRANULE:
            return -value if value else -(1 << self.width)
        return value


# Fields of four bits each, from bit 0 up; `-` is signed, `.` reserved.
_NIBBLES = {
    "ID_AA64PFR0_EL1": "EL0 EL1 EL2 EL3 FP- AdvSIMD- GIC RAS SVE SEL2 MPAM AMU DIT RME CSV2 CSV3",
    "ID_AA64PFR1_EL1": (
        "BT SSBS MTE RAS_frac MPAM_frac . SME RNDR_trap CSV2_frac NMI MTE_frac GCS THE MTEX DF2 "
        "PFAR"
    ),
    "ID_AA64ISAR0_EL1": (
        ". AES SHA1 SHA2 CRC32 Atomic TME RDM SHA3 SM3 SM4 DP FHM TS TLB RNDR"
    ),
    "ID_AA64ISAR1_EL1": (
        "DPB APA API JSCVT FCMA LRCPC GPA GPI FRINTTS SB SPECRES BF16 DGH I8MM XS LS64"
    ),
    "ID_AA64ISAR2_EL1": (
        "WFxT RPRES GPA3 APA3 MOPS BC PAC_frac CLRBHB SYSREG_128 SYSINSTR_128 PRFMSLC . RPRFM CSSC "
        "LUT ATS1A"
    ),
    "ID_AA64MMFR0_EL1": (
        "PARange ASIDBits BigEnd SNSMem BigEndEL0 TGran16 TGran64- TGran4- TGran16_2 TGran64_2 "
        "TGran4_2 ExS . . FGT ECV"
    ),
    "ID_AA64MMFR1_EL1": (
        "HAFDBS VMIDBits VH HPDS LO PAN SpecSEI XNX TWED ETS HCX AFP nTLBPA TIDCP1 CMOW ECBHB"
    ),
    "ID_AA64MMFR2_EL1": (
        "CnP UAO LSM IESB VARange CCIDX NV ST AT IDS FWB . TTL BBM EVT E0PD"
    ),
    "ID_AA64MMFR3_EL1": (
        "TCRX SCTLRX S1PIE S2PIE S1POE S2POE AIE MEC D128 D128_2 SNERR ANERR . SDERR ADERR "
        "Spec_FPACC"
    ),
    "ID_AA64DFR0_EL1": (
        "DebugVer TraceVer PMUVer- BRPs PMSS WRPs SEBEP CTX_CMPs PMSVer DoubleLock- TraceFilt "
        "TraceBuffer MTPMU- BRBE ExtTrcBuff HPMN0"
    ),
    "ID_AA64ZFR0_EL1": (
        "SVEver AES . . BitPerm BF16 B16B16 . SHA3 . SM4 I8MM . F32MM F64MM ."
    ),
    "ID_PFR0": "State0 State1 State2 State3 CSV2 AMU DIT RAS",
    "ID_PFR1": "ProgMod Security MProgMod Virtualization GenTimer Sec_frac Virt_frac GIC",
    "ID_PFR2": "CSV3 SSBS RAS_frac . . . . .",
    "ID_DFR0": "CopDbg CopSDbg MMapDbg CopTrc MMapTrc MProfDbg PerfMon- TraceFilt",
    "ID_DFR1": "MTPMU- HPMN0 . . . . . .",
    "ID_ISAR0": "Swap BitCount BitField CmpBranch Coproc Debug Divide .",
    "ID_ISAR1": "Endian Except Except_AR Extend IfThen Immediate Interwork Jazelle",
    "ID_ISAR2": "LoadStore MemHint MultiAccessInt Mult MultS MultU PSR_AR Reversal",
    "ID_ISAR3": "Saturate SIMD SVC SynchPrim TabBranch T32Copy TrueNOP T32EE",
    "ID_ISAR4": "Unpriv WithShifts Writeback SMC Barrier SynchPrim_frac PSR_M SWP_frac",
    "ID_ISAR5": "SEVL AES SHA1 SHA2 CRC32 . RDM VCMA",
    "ID_ISAR6": "JSCVT DP FHM SB SPECRES BF16 I8MM CLRBHB",
    "ID_MMFR0": "VMSA PMSA OuterShr- ShareLvl TCM AuxReg FCSE InnerShr-",
    "ID_MMFR1": "L1HvdVA L1UniVA L1HvdSW L1UniSW L1Hvd L1Uni L1TstCln BPred",
    "ID_MMFR2": "L1HvdFG L1HvdBG L1HvdRng HvdTLB UniTLB MemBarr WFIStall HWAccFlg",
    "ID_MMFR3": "CMaintVA CMaintSW BPMaint MaintBcst PAN CohWalk CMemSz Supersec-",
    "ID_MMFR4": "SpecSEI AC2 XNX CnP HPDS LSM CCIDX EVT",
    "ID_MMFR5": "ETS nTLBPA . . . . . .",
    "MVFR0": "SIMDReg FPSP FPDP FPTrap FPDivide FPSqrt FPShVec FPRound",
    "MVFR1": "FPFtZ FPDNaN SIMDLS SIMDInt SIMDSP SIMDHP FPHP SIMDFMAC",
    "MVFR2": "SIMDMisc FPMisc . . . . . .",
}  # fmt: skip

_SAME_LAYOUT = {"MVFR0_EL1": "MVFR0", "MVFR1_EL1": "MVFR1", "MVFR2_EL1": "MVFR2"}

# Fields of other widths: name, lowest bit, width and order.
_IRREGULAR = {
    "ID_AA64SMFR0_EL1": (
        ("F32F32", 32, 1), ("BI32I32", 33, 1), ("B16F32", 34, 1), ("F16F32", 35, 1),
        ("I8I32", 36, 4), ("F16F16", 42, 1), ("B16B16", 43, 1), ("I16I32", 44, 4),
        ("F64F64", 48, 1), ("I16I64", 52, 4), ("SMEver", 56, 4), ("LUTv2", 60, 1), ("FA64", 63, 1),
    ),
    "CTR_EL0": (
        ("IminLine", 0, 4), ("L1Ip", 14, 2, Order.EXACT), ("DminLine", 16, 4),
        ("ERG", 20, 4, Order.GRANULE), ("CWG", 24, 4, Order.GRANULE), ("IDC", 28, 1),
        ("DIC", 29, 1), ("TminLine", 32, 6),
    ),
    "DCZID_EL0": (("BS", 0, 4, Order.EXACT), ("DZP", 4, 1, Order.EXACT)),
    "PMCEID0_EL0": (("ID", 0, 64, Order.MASK),),
    "PMCEID1_EL0": (("ID", 0, 64, Order.MASK),),
    "PMCEID0": (("ID", 0, 32, Order.MASK),),
    "PMCEID1": (("ID", 0, 32, Order.MASK),),
    "MPUIR": (("DREGION", 8, 8),),
    "HMPUIR": (("REGION", 0, 8),),
    "MPU_TYPE": (("DREGION", 8, 8),),
}  # fmt: skip

# SCTLR in two shapes: B, which EE replaced, was in it until Armv6.
_SCTLR = {True: {"V": 13, "B": 7}, False: {"V": 13, "EE": 25}}


@cache
def layout(register: str) -> tuple[Field, ...]:
    """The fields of an ID register, every bit in one; what has no name is a field of four bits."""
    named = [_irregular(register, *spec) for spec in _IRREGULAR.get(register, ())]
    nibbles = _NIBBLES.get(_SAME_LAYOUT.get(register, register))
    if nibbles is not None:
        for position, name in enumerate(nibbles.split()):
            if name != ".":
                order = Order.SIGNED if name.endswith("-") else Order.UNSIGNED
                named.append(Field(f"{register}.{name.rstrip('-')}", position * 4, 4, order))
    taken = sum((1 << field.width) - 1 << field.low for field in named)
    rest = []
    for low in range(0, 64, 4):
        free = ~taken >> low & 0xF
        if free == 0xF:
            rest.append(Field(f"{register}[{low + 3}:{low}]", low))
        else:
            rest += [
                Field(f"{register}[{low + bit}]", low + bit, 1)
                for bit in range(4)
                if free >> bit & 1
            ]
    return tuple(sorted([*named, *rest], key=lambda field: field.low))


def _irregular(
    register: str, name: str, low: int, width: int, order: Order = Order.UNSIGNED
) -> Field:
    return Field(f"{register}.{name}", low, width, order)


@cache
def field_of(name: str, before_v7: bool = False) -> Field | None:
    """The field that a place names (`ID_AA64PFR0_EL1.SVE`), None where there is no such field.

    `before_v7` chooses the older shape of SCTLR.
    """
    register, _, short = name.partition(".")
    if register == "SCTLR":
        low = _SCTLR[before_v7].get(short)
        return Field(name, low, 1) if low is not None else None
    return next((field for field in layout(register) if field.name == name), None)
