"""A vCPU's registers in its run page: read and changed without a system call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .native import ffi, lib
from .structs import Regs, Sregs, VcpuEvents

if TYPE_CHECKING:
    from .vcpu import X86VCPU

REGS: int = lib.KVM_SYNC_X86_REGS
SREGS: int = lib.KVM_SYNC_X86_SREGS
EVENTS: int = lib.KVM_SYNC_X86_EVENTS


class SyncRegs:
    """The registers as the last run left them (KVM_CAP_SYNC_REGS), made by `X86VCPU.sync_regs`.

    What is changed here counts from the next run on, if `mark` names it.
    """

    def __init__(self, vcpu: X86VCPU) -> None:
        self._vcpu, page = vcpu, vcpu.run_page
        everything = lib.cpufw_sync_regs(page)
        self._dirty = lib.cpufw_sync_dirty(page)
        self.regs: Regs = ffi.addressof(everything, "regs")
        self.sregs: Sregs = ffi.addressof(everything, "sregs")
        self.events: VcpuEvents = ffi.addressof(everything, "events")
        vcpu.ioctl("KVM_GET_REGS", lib.KVM_GET_REGS, self.regs)
        vcpu.ioctl("KVM_GET_SREGS", lib.KVM_GET_SREGS, self.sregs)
        vcpu.ioctl("KVM_GET_VCPU_EVENTS", lib.KVM_GET_VCPU_EVENTS, self.events)
        lib.cpufw_sync_valid(page)[0] = REGS | SREGS | EVENTS

    def mark(self, parts: int) -> None:
        """The next run takes these parts from here: any of REGS, SREGS and EVENTS."""
        self._dirty[0] |= parts

    def settle(self) -> None:
        """Give KVM now what the next run would take."""
        parts = self._dirty[0]
        if not parts:
            return
        self._dirty[0] = 0
        if parts & REGS:
            self._vcpu.ioctl("KVM_SET_REGS", lib.KVM_SET_REGS, self.regs)
        if parts & SREGS:
            self._vcpu.ioctl("KVM_SET_SREGS", lib.KVM_SET_SREGS, self.sregs)
        if parts & EVENTS:
            self._vcpu.ioctl("KVM_SET_VCPU_EVENTS", lib.KVM_SET_VCPU_EVENTS, self.events)
