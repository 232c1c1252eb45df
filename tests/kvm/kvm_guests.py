"""Small guests for the KVM tests: one vCPU, 1 MiB of memory, code at 0x1000."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from cpufw.kvm import Exit, GuestMemory
from cpufw_x86.kvm import X86KVM, X86VCPU, X86VM, Regs, Segment

MEMORY_SIZE = 0x100000
CODE = 0x1000
NO_MEMORY_HERE = 0x300000

# Long mode: one 2 MiB page mapped one to one, flat ring-0 segments.
PML4, PDPT, PAGE_DIRECTORY, GDT = 0x3000, 0x4000, 0x5000, 0x6000
PRESENT_WRITABLE, LARGE_PAGE = 0x03, 0x80
CR0_PE_MP_ET_NE_WP_AM_PG = 0x8005_0033
CR4_PAE_OSFXSR_OSXMMEXCPT = 0x620
EFER_SCE_LME_LMA = 0x501


class Guest(NamedTuple):
    kvm: X86KVM
    vm: X86VM
    vcpu: X86VCPU
    memory: GuestMemory

    def start_at(self, rip: int, **registers: int) -> None:
        self.vcpu.set_regs(Regs(rip=rip, rflags=2, rsp=0x8000, **registers))


@contextmanager
def real_mode_guest(code: bytes, *, irqchip: bool = False) -> Iterator[Guest]:
    """All segments but CS begin at 0 by reset; CS is made to."""
    with X86KVM() as kvm, kvm.create_vm() as vm, GuestMemory(MEMORY_SIZE) as memory:
        vm.set_tss_addr(0xFFFB_D000)
        if irqchip:
            vm.create_irqchip()
        vm.add_memory(0, 0, memory)
        vcpu = vm.create_vcpu(0)
        sregs = vcpu.get_sregs()
        sregs.cs.base = sregs.cs.selector = 0
        vcpu.set_sregs(sregs)
        memory.write(CODE, code)
        guest = Guest(kvm, vm, vcpu, memory)
        guest.start_at(CODE)
        yield guest
        vm.close()  # before the memory under it


@contextmanager
def long_mode_guest(code: bytes) -> Iterator[Guest]:
    """Ring 0, with the host's supported CPUID."""
    with real_mode_guest(code) as guest:
        guest.vcpu.set_cpuid2(guest.kvm.get_supported_cpuid())
        guest.memory.write(PML4, struct.pack("<Q", PDPT | PRESENT_WRITABLE))
        guest.memory.write(PDPT, struct.pack("<Q", PAGE_DIRECTORY | PRESENT_WRITABLE))
        guest.memory.write(PAGE_DIRECTORY, struct.pack("<Q", PRESENT_WRITABLE | LARGE_PAGE))
        guest.memory.write(
            GDT, struct.pack("<QQQ", 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)
        )
        sregs = guest.vcpu.get_sregs()
        set_flat(sregs.cs, selector=8, type=11, l=1, db=0)
        for segment in (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss):
            set_flat(segment, selector=16, type=3, l=0, db=1)
        sregs.gdt.base, sregs.gdt.limit = GDT, 23
        sregs.cr0, sregs.cr3 = CR0_PE_MP_ET_NE_WP_AM_PG, PML4
        sregs.cr4, sregs.efer = CR4_PAE_OSFXSR_OSXMMEXCPT, EFER_SCE_LME_LMA
        guest.vcpu.set_sregs(sregs)
        yield guest


def set_flat(segment: Segment, *, selector: int, type: int, l: int, db: int) -> None:  # noqa: E741
    segment.base, segment.limit, segment.selector, segment.type = 0, 0xFFFF_FFFF, selector, type
    segment.present = segment.s = segment.g = 1
    segment.l, segment.db, segment.dpl, segment.unusable = l, db, 0, 0


def in_thread(call: Callable[[], Exit]) -> Callable[[float], Exit]:
    """Start `call` in another thread; the function returned waits that long for its result."""
    results: list[Exit] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()

    def result(timeout: float) -> Exit:
        thread.join(timeout)
        assert results, f"no exit within {timeout} s"
        return results[0]

    return result
