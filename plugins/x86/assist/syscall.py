"""System calls from ring 3 on the PVM back end.

There `syscall` in ring 3 jumps to LSTAR with rcx, r11 and rflags as they should be, but stays in
ring 3. So LSTAR leads to a page of ours that ring 3 may execute; its one instruction writes to a
page without memory behind it, and at that exit the vCPU is put where `syscall` leads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpufw.kvm import GuestMemory
from cpufw_x86.assist.cpu_state import CR0_PG, CR4_LA57, EFER_LMA, PAGE
from cpufw_x86.assist.faults import Unassisted
from cpufw_x86.kvm import sync

if TYPE_CHECKING:
    from cpufw_x86.assist.physical import PhysicalMemory
    from cpufw_x86.kvm import X86VCPU, X86VM, Sregs

STAR, LSTAR, FMASK = 0xC000_0081, 0xC000_0082, 0xC000_0084

ENTRY = 0xFFFF_FFFF_FF60_0000
"""Where LSTAR leads: the page of Linux's old vsyscalls, which a kernel of today leaves unused."""
DOOR = ENTRY + PAGE
"""Writing here ends in an exit."""

ENTRY_PAGE, DOOR_PAGE = 0xFEFF_A000, 0xFEFF_B000
"""Their guest-physical addresses, in no E820 range; only the first has memory."""
SLOT = 100
"""The memory slot of the first."""

_CODE = bytes.fromhex("89042500 1060ff")  # mov [DOOR], eax
_AFTER_CODE = ENTRY + len(_CODE)
_HANG = b"\xeb\xfe"  # the exit never comes back here

# Of paging entries: Intel SDM vol. 3A, 5.5.4.
_PRESENT, _WRITABLE, _USER, _CACHE_DISABLED = 1 << 0, 1 << 1, 1 << 2, 1 << 4
_ACCESSED, _DIRTY, _LARGE, _NO_EXECUTE = 1 << 5, 1 << 6, 1 << 7, 1 << 63
_USER_CODE = _PRESENT | _USER | _ACCESSED
_USER_DATA = _PRESENT | _WRITABLE | _USER | _CACHE_DISABLED | _ACCESSED | _DIRTY
_FRAME = 0x000F_FFFF_FFFF_F000
_PAGE_SHIFT, _LARGEST_PAGE_SHIFT = 12, 30
_RF = 1 << 16


class SyscallTrampoline:
    """The trampoline of one VM, with the LSTAR that each vCPU believes it has."""

    def __init__(self, vm: X86VM, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._page = GuestMemory(PAGE)
        self._page.write(0, _CODE + _HANG)
        vm.add_memory(SLOT, ENTRY_PAGE, self._page, readonly=True)
        vm.send_msr_to_user_space(LSTAR)
        self.lstar: dict[int, int] = {}
        self.not_installed = ""
        """Why the last guest that set LSTAR has no trampoline; empty when it has."""

    def read(self, vcpu: X86VCPU) -> int:
        """The guest's LSTAR."""
        kept = self.lstar.get(vcpu.id)
        return vcpu.get_msrs([LSTAR])[LSTAR] if kept is None else kept

    def write(self, vcpu: X86VCPU, value: int) -> None:
        """Set the guest's LSTAR, and the vCPU's to the trampoline if the guest can reach it."""
        self.not_installed = self._install(vcpu.sync_regs.sregs)
        if self.not_installed:
            self.lstar.pop(vcpu.id, None)
            vcpu.set_msrs({LSTAR: value})
        else:
            self.lstar[vcpu.id] = value
            vcpu.set_msrs({LSTAR: ENTRY})

    def enter(self, vcpu: X86VCPU) -> bool:
        """Do what `syscall` does: to ring 0 and the guest's LSTAR. False: nobody jumped here."""
        state = vcpu.sync_regs
        regs, sregs = state.regs, state.sregs
        target = self.lstar.get(vcpu.id)
        if target is None or regs.rip not in (ENTRY, _AFTER_CODE):
            return False
        msrs = vcpu.get_msrs((STAR, FMASK))
        selector = msrs[STAR] >> 32 & 0xFFFC
        # The hidden parts are fixed: AMD APM vol. 3, SYSCALL.
        for segment, offset, kind, long in ((sregs.cs, 0, 11, 1), (sregs.ss, 8, 3, 0)):
            segment.base, segment.limit, segment.selector = 0, 0xFFFF_FFFF, selector + offset
            segment.type, segment.l, segment.db = kind, long, 1 - long
            segment.present = segment.s = segment.g = 1
            segment.dpl = segment.unusable = segment.avl = 0
        regs.rip = target
        regs.rflags = regs.r11 & ~msrs[FMASK] & ~_RF | 2
        state.mark(sync.REGS | sync.SREGS)
        return True

    def _install(self, sregs: Sregs) -> str:
        """Map the two pages in the guest's tables. Why that cannot be done, empty if it is."""
        if not sregs.efer & EFER_LMA or not sregs.cr0 & CR0_PG:
            return "LSTAR was written outside 64-bit mode"
        table, shift = sregs.cr3 & _FRAME, 48 if sregs.cr4 & CR4_LA57 else 39
        try:
            while shift > _PAGE_SHIFT:
                entry = self._entry(table, shift)
                if not entry & _PRESENT or (entry & _LARGE and shift <= _LARGEST_PAGE_SHIFT):
                    return f"no page table of the guest covers {ENTRY:#x}"
                if not entry & _USER or not entry & _WRITABLE or entry & _NO_EXECUTE:
                    return f"the guest's page tables keep ring 3 away from {ENTRY:#x}"
                table, shift = entry & _FRAME, shift - 9
            place = table + (ENTRY >> _PAGE_SHIFT & 511) * 8
            entries = (ENTRY_PAGE | _USER_CODE, DOOR_PAGE | _USER_DATA)
            self._memory.write(place, b"".join(entry.to_bytes(8, "little") for entry in entries))
        except Unassisted as error:
            return f"the guest's page tables are not in RAM: {error}"
        return ""

    def _entry(self, table: int, shift: int) -> int:
        data = self._memory.read(table + (ENTRY >> shift & 511) * 8, 8)
        return int.from_bytes(data, "little")
