"""The kernel's x86 structs, with names that a type checker knows.

Calling one of these classes makes a zeroed cffi struct of the kernel's own layout and fills in
the fields given: `Regs(rip=0x1000, rflags=2)`. What comes back is cffi's pointer to it, not an
instance of the class: fields are read and written by attribute, and only whole numbers that fit
are taken (OverflowError otherwise). Meanings: Linux, Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from .native import ffi


class Struct:
    """Base of the classes here."""

    c_name: ClassVar[str]

    def __new__(cls, **fields: Any) -> Self:
        """Allocate the struct."""
        value: Self = ffi.new(f"struct {cls.c_name} *", fields)
        return value


class Regs(Struct):
    """General registers (KVM_GET_REGS)."""

    c_name = "kvm_regs"
    rax: int
    rbx: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    rsp: int
    rbp: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    rip: int
    rflags: int


class Segment(Struct):
    """A segment register with its hidden part."""

    c_name = "kvm_segment"
    base: int
    limit: int
    selector: int
    type: int
    present: int
    dpl: int
    db: int
    s: int
    l: int  # noqa: E741 (the kernel's name of the 64-bit code flag)
    g: int
    avl: int
    unusable: int


class DescriptorTable(Struct):
    """GDTR or IDTR."""

    c_name = "kvm_dtable"
    base: int
    limit: int


class SpecialRegisters(Struct):
    """What both structs of segment, control and descriptor-table registers hold."""

    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldt: Segment
    gdt: DescriptorTable
    idt: DescriptorTable
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    apic_base: int


class Sregs(SpecialRegisters):
    """Segment, control and descriptor-table registers (KVM_GET_SREGS)."""

    c_name = "kvm_sregs"
    interrupt_bitmap: Sequence[int]


class Sregs2(SpecialRegisters):
    """As Sregs, with the PDPTEs instead of the pending interrupt (KVM_GET_SREGS2)."""

    c_name = "kvm_sregs2"
    flags: int
    pdptrs: Sequence[int]


class Fpu(Struct):
    """x87 and SSE state (KVM_GET_FPU); each of `fpr` and `xmm` is 16 bytes."""

    c_name = "kvm_fpu"
    fpr: Any
    fcw: int
    fsw: int
    ftwx: int
    last_opcode: int
    last_ip: int
    last_dp: int
    xmm: Any
    mxcsr: int


class PendingException(Struct):
    """The exception part of VcpuEvents."""

    injected: int
    nr: int
    has_error_code: int
    pending: int
    error_code: int


class PendingInterrupt(Struct):
    """The interrupt part of VcpuEvents."""

    injected: int
    nr: int
    soft: int
    shadow: int


class PendingNmi(Struct):
    """The NMI part of VcpuEvents."""

    injected: int
    pending: int
    masked: int


class PendingSmi(Struct):
    """The SMM part of VcpuEvents."""

    smm: int
    pending: int
    smm_inside_nmi: int
    latched_init: int


class TripleFault(Struct):
    """The triple-fault part of VcpuEvents."""

    pending: int


class VcpuEvents(Struct):
    """Events pending or being delivered (KVM_GET_VCPU_EVENTS); `flags`: KVM_VCPUEVENT_*."""

    c_name = "kvm_vcpu_events"
    exception: PendingException
    interrupt: PendingInterrupt
    nmi: PendingNmi
    sipi_vector: int
    flags: int
    smi: PendingSmi
    triple_fault: TripleFault
    exception_has_payload: int
    exception_payload: int


class DebugRegs(Struct):
    """DR0-DR3 as `db`, DR6 and DR7 (KVM_GET_DEBUGREGS)."""

    c_name = "kvm_debugregs"
    db: Any
    dr6: int
    dr7: int
    flags: int


class ClockData(Struct):
    """kvmclock in ns, and the host's clock and TSC at that moment (KVM_GET_CLOCK)."""

    c_name = "kvm_clock_data"
    clock: int
    flags: int
    realtime: int
    host_tsc: int
