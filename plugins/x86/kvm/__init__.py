"""KVM on x86: `X86KVM` -> `X86VM` -> `X86VCPU`."""

from .cpuid import FLAG_SIGNIFICANT_INDEX, CpuidEntry
from .exits import DebugExit, IoapicEoiExit, MsrExit
from .structs import ClockData, DebugRegs, Fpu, Regs, Segment, Sregs, Sregs2, VcpuEvents
from .sync import SyncRegs
from .system import X86KVM
from .vcpu import X86VCPU, Breakpoint, BreakpointKind, Translation
from .vm import IOAPIC, PIC_MASTER, PIC_SLAVE, X86VM

__all__ = [
    "FLAG_SIGNIFICANT_INDEX",
    "IOAPIC",
    "PIC_MASTER",
    "PIC_SLAVE",
    "X86KVM",
    "X86VCPU",
    "X86VM",
    "Breakpoint",
    "BreakpointKind",
    "ClockData",
    "CpuidEntry",
    "DebugExit",
    "DebugRegs",
    "Fpu",
    "IoapicEoiExit",
    "MsrExit",
    "Regs",
    "Segment",
    "Sregs",
    "Sregs2",
    "SyncRegs",
    "Translation",
    "VcpuEvents",
]
