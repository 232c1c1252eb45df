"""Bindings to /dev/kvm, the same for every architecture: `KVM` -> `VM` -> `VCPU`."""

from .exits import (
    Exit,
    FailEntryExit,
    HltExit,
    InternalErrorExit,
    Interrupted,
    IoExit,
    IrqWindowExit,
    MmioExit,
    OtherExit,
    OutputReady,
    ShutdownExit,
    SystemEventExit,
)
from .handle import Handle
from .memory import GuestMemory, MemoryBackend
from .system import KVM
from .uart import Uart16550
from .vcpu import VCPU
from .vm import VM

__all__ = [
    "KVM",
    "VCPU",
    "VM",
    "Exit",
    "FailEntryExit",
    "GuestMemory",
    "Handle",
    "HltExit",
    "InternalErrorExit",
    "Interrupted",
    "IoExit",
    "IrqWindowExit",
    "MemoryBackend",
    "MmioExit",
    "OtherExit",
    "OutputReady",
    "ShutdownExit",
    "SystemEventExit",
    "Uart16550",
]
