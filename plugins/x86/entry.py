"""The boot CPU's registers and tables for each mode in which an image can be entered."""

from __future__ import annotations

import struct
from collections.abc import Callable

from cpufw.errors import ImageError
from cpufw_x86.image import EntryMode, Image
from cpufw_x86.kvm import X86VCPU, Regs, Sregs

# Conventional memory below the EBDA; a guest may reuse it once it has its own tables.
BOOT_TABLES = 0x9_0000
_GDT = BOOT_TABLES
_PML4 = BOOT_TABLES + 0x1000
BOOT_TABLES_END = BOOT_TABLES + 0x7000
_STACK = {EntryMode.REAL: 0x7C00, EntryMode.PROTECTED: BOOT_TABLES, EntryMode.LONG: BOOT_TABLES}

# Intel SDM vol. 3A: 2.5 (control registers), 2.2.1 (EFER), 3.4.5 (descriptors), 4.5 (paging).
_CR0_PE, _CR0_ET, _CR0_PG = 1 << 0, 1 << 4, 1 << 31
_CR4_PAE = 1 << 5
_EFER_LME, _EFER_LMA = 1 << 8, 1 << 10
_CODE, _DATA, _TSS_BUSY = 0xB, 0x3, 0xB  # types: execute/read accessed, read/write accessed
_PRESENT_WRITABLE, _LARGE = 0x3, 1 << 7
_GDT_CODE32, _GDT_DATA, _GDT_CODE64 = 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF
_SEL_CODE32, _SEL_DATA, _SEL_CODE64 = 0x08, 0x10, 0x18

Write = Callable[[int, bytes], None]


def enter(vcpu: X86VCPU, image: Image, write: Write) -> None:
    """Set `vcpu` to begin at the image's entry: flat segments, interrupts off.

    In long mode the first 4 GiB are mapped one to one with 2 MiB pages. The image must have passed
    `check_entry`.
    """
    sregs = vcpu.get_sregs()
    regs = Regs(rip=image.entry, rsp=_STACK[image.mode], rflags=0x2)
    if image.mode is EntryMode.REAL:
        base = image.entry & 0xF_0000
        sregs.cs.base, sregs.cs.selector = base, base >> 4
        regs.rip = image.entry & 0xFFFF
    else:
        table = struct.pack("<4Q", 0, _GDT_CODE32, _GDT_DATA, _GDT_CODE64)
        write(_GDT, table)
        sregs.gdt.base, sregs.gdt.limit = _GDT, len(table) - 1
        sregs.cr0 = _CR0_PE | _CR0_ET
        long = image.mode is EntryMode.LONG
        _flat(sregs, long)
        if long:
            _identity_map(write)
            sregs.cr3, sregs.cr4 = _PML4, _CR4_PAE
            sregs.efer = _EFER_LME | _EFER_LMA
            sregs.cr0 |= _CR0_PG
    vcpu.set_sregs(sregs)
    vcpu.set_regs(regs)


def check_entry(image: Image) -> None:
    """Raise `ImageError` if the image cannot be entered in its mode.

    Real mode reaches 1 MiB, the others 4 GiB; those need `BOOT_TABLES` free for their tables.
    """
    real = image.mode is EntryMode.REAL
    if image.entry >= 1 << (20 if real else 32):
        raise ImageError(
            f"guest image {image.path} begins at {image.entry:#x}, beyond "
            f"{'the 1 MiB of real mode' if real else 'the first 4 GiB'}"
        )
    if real:
        return
    for segment in image.segments:
        if segment.address < BOOT_TABLES_END and segment.address + segment.size > BOOT_TABLES:
            raise ImageError(
                f"guest image {image.path} covers {BOOT_TABLES:#x}-{BOOT_TABLES_END - 1:#x}, which "
                f"entering in {image.mode.value} mode needs for its tables; load it elsewhere"
            )


def _flat(sregs: Sregs, long: bool) -> None:
    code = sregs.cs
    code.base, code.limit, code.selector = 0, 0xFFFFFFFF, _SEL_CODE64 if long else _SEL_CODE32
    code.type, code.present, code.dpl, code.s, code.g = _CODE, 1, 0, 1, 1
    code.db, code.l = (0, 1) if long else (1, 0)
    for data in (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss):
        data.base, data.limit, data.selector = 0, 0xFFFFFFFF, _SEL_DATA
        data.type, data.present, data.dpl, data.s, data.g = _DATA, 1, 0, 1, 1
        data.db, data.l = 1, 0
    task = sregs.tr
    task.base, task.limit, task.type, task.present, task.s = 0, 0xFFFF, _TSS_BUSY, 1, 0


def _identity_map(write: Write) -> None:
    tables = _PML4 + 0x1000
    write(_PML4, struct.pack("<Q", tables | _PRESENT_WRITABLE))
    directories = [tables + 0x1000 * (i + 1) for i in range(4)]
    write(tables, struct.pack("<4Q", *(table | _PRESENT_WRITABLE for table in directories)))
    pages = (i << 21 | _PRESENT_WRITABLE | _LARGE for i in range(4 * 512))
    write(directories[0], struct.pack(f"<{4 * 512}Q", *pages))
