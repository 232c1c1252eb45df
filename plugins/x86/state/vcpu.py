"""The state of a vCPU. The kernel's structs are saved as they are: their layout is fixed for ever.

What they mean: Linux, Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar

from cpufw.core.vmstate import Subsection, VMState, array, blob, u8, u32, u64
from cpufw.errors import KvmError, StateError
from cpufw_x86.kvm import X86VCPU, DebugRegs, Regs, Sregs, Sregs2, VcpuEvents
from cpufw_x86.kvm.native import ffi, lib
from cpufw_x86.state.msrs import TSC, TSC_DEADLINE, MsrList, write_changed

# What struct kvm_sregs and struct kvm_sregs2 have in common, from their beginning.
_SREGS_BYTES: int = ffi.offsetof("struct kvm_sregs2", "flags")
_PDPTRS_VALID = 1  # KVM_SREGS2_FLAGS_PDPTRS_VALID
_LAPIC_BYTES: int = ffi.sizeof("struct kvm_lapic_state")
_LARGEST_XSAVE = 1 << 16


class VcpuState:
    """All that a guest can know of a vCPU: `read` takes it from one, `write` gives it to another.

    The times in it (`write_time`) are for when that one is about to run.
    """

    vmstate: ClassVar[VMState] = VMState(
        "vcpu",
        1,
        u8("mp_state"),
        blob("regs", ffi.sizeof("struct kvm_regs")),
        blob("sregs", _SREGS_BYTES),
        blob("events", ffi.sizeof("struct kvm_vcpu_events")),
        blob("debugregs", ffi.sizeof("struct kvm_debugregs")),
        blob("xsave", most=_LARGEST_XSAVE),
        array(u32, "xcr_numbers", most=16),
        array(u64, "xcr_values", most=16),
        array(u32, "msr_numbers", most=4096),
        array(u64, "msr_values", most=4096),
        blob("lapic", _LAPIC_BYTES),
        u32("tsc_khz"),
        Subsection("vcpu/pdptrs", array(u64, "pdptrs", most=4, default=[])),
        Subsection("vcpu/lstar", u64("guest_lstar", default=0)),
    )

    mp_state = tsc_khz = 0
    guest_lstar = 0
    """What the guest set LSTAR to, where the emulation assist keeps it; else 0."""
    regs = sregs = events = debugregs = xsave = lapic = b""

    def __init__(self) -> None:
        self.xcr_numbers: list[int] = []
        self.xcr_values: list[int] = []
        self.msr_numbers: list[int] = []
        self.msr_values: list[int] = []
        self.pdptrs: list[int] = []

    @classmethod
    def read(cls, vcpu: X86VCPU, msrs: MsrList) -> VcpuState:
        """The state of a vCPU that does not run."""
        state = cls()
        state.mp_state = vcpu.get_mp_state()  # first: it takes in INIT and SIPI that wait
        state.events = _bytes(vcpu.get_vcpu_events())
        state.regs = _bytes(vcpu.get_regs())
        if vcpu.vm.check_extension("KVM_CAP_SREGS2"):
            sregs = vcpu.get_sregs2()
            state.sregs = _bytes(sregs)[:_SREGS_BYTES]
            if sregs.flags & _PDPTRS_VALID:
                state.pdptrs = list(sregs.pdptrs)
        else:
            state.sregs = _bytes(vcpu.get_sregs())[:_SREGS_BYTES]
        state.debugregs = _bytes(vcpu.get_debugregs())
        state.xsave = vcpu.get_xsave().rstrip(b"\0")
        xcrs = vcpu.get_xcrs() if vcpu.vm.check_extension("KVM_CAP_XCRS") else {}
        state.xcr_numbers, state.xcr_values = list(xcrs), list(xcrs.values())
        values = msrs.read(vcpu)
        state.msr_numbers, state.msr_values = list(values), list(values.values())
        state.lapic = vcpu.get_lapic()
        state.tsc_khz = vcpu.get_tsc_khz()
        return state

    @property
    def msrs(self) -> dict[int, int]:
        """The MSRs by number. Raises `StateError` where a number lacks its value."""
        return _paired(self.msr_numbers, self.msr_values, "MSRs")

    def write(self, vcpu: X86VCPU) -> None:
        """Give the state to a vCPU that has not run. Raises `StateError` where it is refused."""
        try:
            self._write(vcpu)
        except KvmError as error:
            raise StateError(
                f"this host's KVM cannot give a CPU its saved state: {error}"
            ) from None

    def _write(self, vcpu: X86VCPU) -> None:
        # The order matters to KVM: the local APIC's mode and base (in sregs) before its
        # registers, XCR0 and MSRs before events, MP state after what could wake it.
        self._write_sregs(vcpu)
        vcpu.set_regs(_struct(Regs, self.regs))
        size = len(vcpu.get_xsave())
        if len(self.xsave) > size:
            raise StateError(
                f"the saved vector registers have {len(self.xsave)} bytes, this host's {size}"
            )
        vcpu.set_xsave(self.xsave.ljust(size, b"\0"))
        xcrs = _paired(self.xcr_numbers, self.xcr_values, "XCRs")
        if xcrs:
            vcpu.set_xcrs(xcrs)
        times = (TSC, TSC_DEADLINE)
        write_changed(vcpu, {n: value for n, value in self.msrs.items() if n not in times})
        vcpu.set_lapic(self.lapic)
        vcpu.set_debugregs(_struct(DebugRegs, self.debugregs))
        events = _struct(VcpuEvents, self.events)
        # KVM takes these two only when told so; of the others what this kernel knows itself.
        events.flags &= vcpu.get_vcpu_events().flags
        events.flags |= lib.KVM_VCPUEVENT_VALID_NMI_PENDING | lib.KVM_VCPUEVENT_VALID_SIPI_VECTOR
        vcpu.set_vcpu_events(events)
        vcpu.set_mp_state(self.mp_state)

    def _write_sregs(self, vcpu: X86VCPU) -> None:
        if not vcpu.vm.check_extension("KVM_CAP_SREGS2"):
            vcpu.set_sregs(_struct(Sregs, self.sregs))
            return
        sregs = _struct(Sregs2, self.sregs)
        if self.pdptrs:
            sregs.flags = _PDPTRS_VALID
            for index, value in enumerate(self.pdptrs):
                sregs.pdptrs[index] = value
        vcpu.set_sregs2(sregs)

    def write_time(self, vcpu: X86VCPU) -> None:
        """Set the time-stamp counter, then the deadline that is a value of it."""
        if vcpu.get_tsc_khz() != self.tsc_khz:
            with suppress(KvmError):  # a host without TSC scaling: kvmclock tells the guest
                vcpu.set_tsc_khz(self.tsc_khz)
        values = self.msrs
        for index in (TSC, TSC_DEADLINE):
            if values.get(index):
                vcpu.set_msrs({index: values[index]})


def _paired(numbers: list[int], values: list[int], what: str) -> dict[int, int]:
    if len(numbers) != len(values):
        raise StateError(f"state of vcpu has {len(numbers)} {what} with {len(values)} values")
    return dict(zip(numbers, values, strict=True))


def _bytes(struct: Any) -> bytes:
    return bytes(ffi.buffer(struct))


def _struct(kind: Any, content: bytes) -> Any:
    struct = kind()
    ffi.memmove(struct, content, len(content))
    return struct
