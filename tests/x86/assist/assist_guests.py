"""Small ring-0 guests that run instructions KVM may hand back, with the assist attached.

On a host with VMX or SVM they run natively, and the same answers are expected there.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from cpufw.kvm import Exit, HltExit, InternalErrorExit, MmioExit
from cpufw_x86.assist import Assist
from cpufw_x86.kvm import X86KVM, X86VCPU, X86VM, Regs, Segment, Sregs
from cpufw_x86.kvm.exits import MsrExit
from cpufw_x86.memory import GuestRam

CODE = 0x1000
RESULTS = 0x8000
"""Where the programs leave what they found; 8 bytes each."""
TABLES, GDT, IDT, TSS = 0x10000, 0x20000, 0x21000, 0x22000
STACK, RING0_STACK = 0x30000, 0x38000
USER_PAGE, READ_ONLY_PAGE, NOT_MAPPED = 0x40000, 0x41000, 0x300000

_MEMORY = 2 << 20
_PRESENT, _WRITABLE, _USER = 1, 2, 4
CODE64, DATA, USER_DATA, USER_CODE64 = 0x08, 0x10, 0x1B, 0x23
CALL_GATE = 0x30
_CR0 = 0x8005_0033  # PE, MP, ET, NE, WP, AM, PG
_CR4 = 0x620  # PAE, OSFXSR, OSXMMEXCPT
_EFER = 0xD01  # SCE, LME, LMA, NXE

# Every vector's handler writes vector, error code, rip, rflags and cr2 to `trapped` and halts,
# but for those that a test gives itself.
_ERROR_CODE = (8, 10, 11, 12, 13, 14, 17)
_HANDLERS = """
.set results, 0x8000
.set trapped, 0x9000
.macro handler vector, has_error
.balign 64
    .if \\has_error == 0
    push 0
    .endif
    mov qword ptr [trapped], \\vector
    jmp common
.endm
common:
    pop rax
    mov [trapped + 8], rax
    pop rax
    mov [trapped + 16], rax
    pop rax
    mov [trapped + 24], rax
    pop rax
    mov [trapped + 32], rax
    mov rax, cr2
    mov [trapped + 40], rax
    hlt
.balign 64
.global handlers
handlers:
"""
TRAPPED = 0x9000


class Trap(NamedTuple):
    """What the guest's handler saw."""

    vector: int
    error_code: int
    rip: int
    cs: int
    rflags: int
    cr2: int


class Guest(NamedTuple):
    """A guest to run; `labels` are addresses in its program."""

    vm: X86VM
    vcpu: X86VCPU
    ram: GuestRam
    assist: Assist

    def run(self, vcpu: X86VCPU | None = None) -> Exit:
        """Run until an exit that is nobody's; a halt in the end."""
        vcpu = vcpu or self.vcpu
        while True:
            exit = vcpu.run()
            match exit:
                case InternalErrorExit() if self.assist.finish(vcpu, exit):
                    continue
                case MmioExit() if self.assist.on_mmio(vcpu, exit):
                    continue
                case MsrExit() if self.assist.on_msr(vcpu, exit):
                    continue
            return exit

    def finish(self) -> None:
        """Run until it halts."""
        exit = self.run()
        assert isinstance(exit, HltExit), (exit, self.assist.refusal)

    def results(self, count: int) -> list[int]:
        """The first words that the program left."""
        return list(struct.unpack(f"<{count}Q", self.ram.read_some(RESULTS, 8 * count)))

    @property
    def trap(self) -> Trap:
        """The exception that ended the program."""
        return Trap(*struct.unpack("<6Q", self.ram.read_some(TRAPPED, 48)))


@contextmanager
def guest(program: str, folder: Path, *, cpus: int = 1, mode: str = "on") -> Iterator[Guest]:
    """A 64-bit guest in ring 0 at the start of `program`, assembly in Intel syntax.

    2 MiB of RAM are mapped one to one: all for the supervisor but USER_PAGE, all writable but
    READ_ONLY_PAGE.
    """
    code = _assemble(program, folder)
    with X86KVM() as kvm, kvm.create_vm() as vm:
        vm.set_identity_map_addr(0xFEFF_C000)
        vm.set_tss_addr(0xFEFF_D000)
        if cpus > 1:
            vm.create_irqchip()
        ram = GuestRam(vm, _MEMORY)
        assist = Assist(mode)
        assist.attach(vm, ram)
        ram.write(CODE, code)
        _write_tables(ram)
        vcpus = [vm.create_vcpu(number) for number in range(cpus)]
        for vcpu in vcpus:
            vcpu.set_cpuid2(kvm.get_supported_cpuid())
            _set_registers(vcpu)
        yield Guest(vm, vcpus[0], ram, assist)
        vm.close()
        ram.close()


def run_all(made: Guest) -> None:
    """Run every vCPU of a guest in a thread of its own, until each has halted."""
    vcpus = [vcpu for vcpu in made.vm.vcpus.values() if isinstance(vcpu, X86VCPU)]
    threads = [threading.Thread(target=made.run, args=(vcpu,), daemon=True) for vcpu in vcpus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def _assemble(program: str, folder: Path) -> bytes:
    if not shutil.which("as") or not shutil.which("ld"):
        pytest.skip("binutils (as, ld) is not installed")
    handlers = "\n".join(
        f".global handler{n}\nhandler {n}, {int(n in _ERROR_CODE)}" for n in range(48)
    ).replace(".global handler", "# handler")
    source, objects, binary = folder / "guest.s", folder / "guest.o", folder / "guest.bin"
    # The handlers come first, so that where they are does not depend on the program.
    source.write_text(
        ".intel_syntax noprefix\n.code64\njmp start\n.balign 64\n"
        f"{_HANDLERS}\n{handlers}\n.balign 64\nstart:\n{program}\n",
        encoding="ascii",
    )
    subprocess.run(["as", "--64", "-o", objects, source], check=True)
    subprocess.run(
        ["ld", "-Ttext", hex(CODE), "--oformat", "binary", "-e", "0", "-o", binary, objects],
        check=True,
    )
    return binary.read_bytes()


_FIRST_HANDLER = CODE + 128  # behind the jump and `common`, each in 64 bytes


def _write_tables(ram: GuestRam) -> None:
    entries = [0] * 512
    for page in range(512):
        user = _USER if page * 0x1000 in (USER_PAGE,) else 0
        writable = 0 if page * 0x1000 == READ_ONLY_PAGE else _WRITABLE
        entries[page] = page << 12 | _PRESENT | writable | user
    levels = [TABLES + 0x1000 * n for n in range(7)]
    top, directory_pointers, directory, low, high_pointers, high_directory, high = levels
    link = _PRESENT | _WRITABLE | _USER
    ram.write(low, struct.pack("<512Q", *entries))
    ram.write(directory, struct.pack("<Q", low | link))
    ram.write(directory_pointers, struct.pack("<Q", directory | link))
    ram.write(top, struct.pack("<Q", directory_pointers | link))
    # Linux's fixmap: what the syscall trampoline needs.
    ram.write(top + 511 * 8, struct.pack("<Q", high_pointers | link))
    ram.write(high_pointers + 511 * 8, struct.pack("<Q", high_directory | link))
    ram.write(high_directory + 507 * 8, struct.pack("<Q", high | link))
    tss_low = 0x0000_8900_0000_0067 | TSS << 16
    ram.write(
        GDT,
        struct.pack(
            "<8Q",
            0,
            0x00AF_9B00_0000_FFFF,
            0x00CF_9300_0000_FFFF,
            0x00CF_F300_0000_FFFF,
            0x00AF_FB00_0000_FFFF,
            0x0040_9B00_1234_0FFF,  # 0x28: 32-bit code of 4 KiB, base 0x1234
            0x0000_EC00_0008_0000,  # 0x30: a call gate
            0x00CF_1300_0000_FFFF,  # 0x38: data that is not present
        ),
    )
    ram.write(GDT + 0x40, struct.pack("<2Q", tss_low, 0))
    ram.write(TSS + 4, struct.pack("<Q", RING0_STACK))
    gates = b"".join(
        struct.pack("<HHHHII", at & 0xFFFF, CODE64, 0x8E00 | 0x6000 * (n >= 32), at >> 16, 0, 0)
        for n in range(48)
        for at in (_FIRST_HANDLER + 64 * n,)
    )
    ram.write(IDT, gates)


def _set_registers(vcpu: X86VCPU) -> None:
    sregs: Sregs = vcpu.get_sregs()
    _flat(sregs.cs, CODE64, 11, long=True)
    for segment in (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss):
        _flat(segment, DATA, 3, long=False)
    sregs.gdt.base, sregs.gdt.limit = GDT, 0x4F
    sregs.idt.base, sregs.idt.limit = IDT, 48 * 16 - 1
    sregs.tr.base, sregs.tr.limit, sregs.tr.selector, sregs.tr.type = TSS, 0x67, 0x40, 11
    sregs.tr.present, sregs.tr.s, sregs.tr.unusable = 1, 0, 0
    sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = _CR0, TABLES, _CR4, _EFER
    vcpu.set_sregs(sregs)
    stack = STACK - 0x1000 * vcpu.id
    vcpu.set_regs(Regs(rip=CODE, rflags=2, rsp=stack, r15=vcpu.id))
    if vcpu.id:
        vcpu.set_mp_state(0)  # KVM_MP_STATE_RUNNABLE


def _flat(segment: Segment, selector: int, kind: int, *, long: bool) -> None:
    segment.base, segment.limit, segment.selector, segment.type = 0, 0xFFFF_FFFF, selector, kind
    segment.present = segment.s = segment.g = 1
    segment.l, segment.db, segment.dpl, segment.unusable = int(long), int(not long), 0, 0
