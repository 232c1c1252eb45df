"""The state in which the boot CPU begins: mode, registers, and the tables that a mode needs."""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from cpufw_x86.kvm import X86VCPU, Regs, Segment, Sregs
from cpufw_x86.memory_map import BOOT_TABLES, HIGH_MEMORY, HOLE_END


class EntryMode(enum.Enum):
    """The processor mode in which an image is entered."""

    REAL = "real"
    PROTECTED = "protected"
    LONG = "long"


_GDT = BOOT_TABLES.start
_PML4 = BOOT_TABLES.start + 0x1000
REAL_MODE_STACK = 0x7C00

# Intel SDM vol. 3A: 2.5 (control registers), 2.2.1 (EFER), 3.4.5 (descriptors), 4.5 (paging),
# 10.1.1 (after reset).
_CR0_PE, _CR0_ET, _CR0_NW_CD, _CR0_PG = 1 << 0, 1 << 4, 3 << 29, 1 << 31
_CR4_PAE = 1 << 5
_EFER_LME, _EFER_LMA = 1 << 8, 1 << 10
_CODE, _DATA, _LDT, _TSS_BUSY = 0xB, 0x3, 0x2, 0xB  # types of descriptors; code and data accessed
_PRESENT_WRITABLE, _LARGE = 0x3, 1 << 7
_GDT_CODE32, _GDT_CODE64, _GDT_DATA = 0x00CF9B000000FFFF, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
# Linux, Documentation/x86/boot.rst, "32-bit boot protocol" and "64-bit boot protocol":
# __BOOT_CS and __BOOT_DS. The other protocols leave the selectors open.
BOOT_CS, BOOT_DS = 0x10, 0x18


class CpuStart(NamedTuple):
    """Begin at `address` in `mode`, with interrupts off and flat segments.

    `address` is linear and, without paging or mapped one to one, physical. In real mode `cs_base`
    is the code segment's base. `registers` names general registers that are not zero. In long mode
    the first 4 GiB are mapped one to one with 2 MiB pages.
    """

    mode: EntryMode
    address: int
    registers: Mapping[str, int] = MappingProxyType({})
    cs_base: int = 0

    @property
    def reach(self) -> int:
        """The end of the memory in which the mode can begin."""
        if self.mode is EntryMode.REAL:
            return self.cs_base + HIGH_MEMORY if self.cs_base > HIGH_MEMORY else HIGH_MEMORY
        return HOLE_END

    def tables(self) -> bytes:
        """What has to be at BOOT_TABLES; empty in real mode."""
        if self.mode is EntryMode.REAL:
            return b""
        if self.mode is EntryMode.PROTECTED:
            return struct.pack("<4Q", 0, 0, _GDT_CODE32, _GDT_DATA)
        gdt = struct.pack("<4Q", 0, 0, _GDT_CODE64, _GDT_DATA)
        return gdt.ljust(_PML4 - _GDT, b"\0") + _identity_map()

    def enter(self, vcpu: X86VCPU) -> None:
        """Set general, segment, control and table registers, whatever they were before."""
        sregs = vcpu.get_sregs()
        regs = Regs(rip=self.address, rflags=0x2)
        sregs.cr2 = sregs.cr3 = sregs.cr4 = sregs.cr8 = sregs.efer = 0
        sregs.idt.base, sregs.idt.limit = 0, 0xFFFF
        sregs.gdt.base, sregs.gdt.limit = 0, 0xFFFF
        _system_segment(sregs.ldt, _LDT)
        _system_segment(sregs.tr, _TSS_BUSY)
        if self.mode is EntryMode.REAL:
            regs.rsp, regs.rip = REAL_MODE_STACK, self.address - self.cs_base
            sregs.cr0 = _CR0_ET | _CR0_NW_CD
            _real_segments(sregs, self.cs_base)
        else:
            long = self.mode is EntryMode.LONG
            regs.rsp = BOOT_TABLES.start
            sregs.gdt.base, sregs.gdt.limit = _GDT, BOOT_DS + 7
            sregs.cr0 = _CR0_PE | _CR0_ET
            _flat_segments(sregs, long)
            if long:
                sregs.cr3, sregs.cr4 = _PML4, _CR4_PAE
                sregs.efer = _EFER_LME | _EFER_LMA
                sregs.cr0 |= _CR0_PG
        for name, value in self.registers.items():
            setattr(regs, name, value)
        vcpu.set_sregs(sregs)
        vcpu.set_regs(regs)


def _real_segments(sregs: Sregs, cs_base: int) -> None:
    for each in (sregs.cs, sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss):
        each.base, each.limit, each.selector, each.type = 0, 0xFFFF, 0, _DATA
        each.present, each.s = 1, 1
        each.dpl = each.db = each.l = each.g = each.avl = each.unusable = 0
    sregs.cs.type = _CODE
    sregs.cs.base, sregs.cs.selector = cs_base, cs_base >> 4 & 0xFFFF


def _flat_segments(sregs: Sregs, long: bool) -> None:
    for each in (sregs.cs, sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss):
        each.base, each.limit, each.selector, each.type = 0, 0xFFFFFFFF, BOOT_DS, _DATA
        each.present, each.s, each.g, each.db = 1, 1, 1, 1
        each.dpl = each.l = each.avl = each.unusable = 0
    code = sregs.cs
    code.selector, code.type = BOOT_CS, _CODE
    code.db, code.l = (0, 1) if long else (1, 0)


def _system_segment(segment: Segment, type: int) -> None:
    segment.base, segment.limit, segment.selector, segment.type = 0, 0xFFFF, 0, type
    segment.present = 1
    segment.s = segment.dpl = segment.db = segment.l = segment.g = segment.avl = 0
    segment.unusable = 0


def _identity_map() -> bytes:
    pointers = _PML4 + 0x1000
    pml4 = struct.pack("<Q", pointers | _PRESENT_WRITABLE).ljust(0x1000, b"\0")
    directories = (pointers + 0x1000 * (i + 1) for i in range(4))
    entries = struct.pack("<4Q", *(each | _PRESENT_WRITABLE for each in directories))
    pages = (i << 21 | _PRESENT_WRITABLE | _LARGE for i in range(4 * 512))
    return pml4 + entries.ljust(0x1000, b"\0") + struct.pack(f"<{4 * 512}Q", *pages)
