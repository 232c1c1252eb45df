"""x86 state in and out of the kernel, and guests that depend on it."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest
from kvm_guests import CODE, PML4, long_mode_guest, real_mode_guest

from cpufw.errors import KvmError
from cpufw.kvm import HltExit, IoExit
from cpufw_x86.kvm import (
    FLAG_SIGNIFICANT_INDEX,
    PIC_MASTER,
    X86KVM,
    Breakpoint,
    BreakpointKind,
    CpuidEntry,
    DebugExit,
    DebugRegs,
    MsrExit,
    cpuid,
)

pytestmark = pytest.mark.kvm

HLT = b"\xf4"
NOP = b"\x90"


def test_supported_cpuid_has_a_vendor_and_no_padding() -> None:
    with X86KVM() as kvm:
        entries = kvm.get_supported_cpuid()
    first = entries[0]
    vendor = struct.pack("<III", first.ebx, first.edx, first.ecx)
    assert (first.function, len(vendor.strip(b"\0"))) == (0, 12)
    assert entries[-1].function
    subleaves = [entry for entry in entries if entry.function == 7]
    assert subleaves
    assert all(entry.flags & FLAG_SIGNIFICANT_INDEX for entry in subleaves)


def test_cpuid_table_longer_than_the_first_try(monkeypatch: pytest.MonkeyPatch) -> None:
    with X86KVM() as kvm:
        whole = kvm.get_supported_cpuid()
        monkeypatch.setattr(cpuid, "_FIRST_TRY", 3)
        again = kvm.get_supported_cpuid()
    assert len(whole) > 3
    assert [(entry.function, entry.index) for entry in again] == [
        (entry.function, entry.index) for entry in whole
    ]


def test_guest_in_ring_0_sees_the_cpuid_that_kvm_reports() -> None:
    with long_mode_guest(b"\x0f\xa2\xe6\x10" + HLT) as guest:  # cpuid; out 0x10, al
        differing: list[str] = []
        for entry in guest.vcpu.get_cpuid2():
            guest.start_at(CODE, rax=entry.function, rcx=entry.index)
            assert isinstance(guest.vcpu.run(), IoExit)
            regs = guest.vcpu.get_regs()
            seen = CpuidEntry(
                entry.function, entry.index, entry.flags, regs.rax, regs.rbx, regs.rcx, regs.rdx
            )
            # KVM adapts some entries to the guest's CR4 and XCR0: compare with its last word.
            granted = next(
                now
                for now in guest.vcpu.get_cpuid2()
                if (now.function, now.index) == (entry.function, entry.index)
            )
            if seen != granted:
                differing.append(f"{granted} seen as {seen}")
        assert differing == []


def test_cpuid_that_was_set_is_read_back() -> None:
    brand = CpuidEntry(0x8000_0002, 0, 0, *struct.unpack("<IIII", b"cpufw test brand"))
    with X86KVM() as kvm, kvm.create_vm() as vm:
        vcpu = vm.create_vcpu(0)
        assert vcpu.get_cpuid2() == ()
        others = tuple(e for e in kvm.get_supported_cpuid() if e.function != brand.function)
        vcpu.set_cpuid2((*others, brand))
        assert brand in vcpu.get_cpuid2()
        assert len(vcpu.get_cpuid2()) == len(others) + 1


LSTAR, STAR, KERNEL_GS_BASE = 0xC000_0082, 0xC000_0081, 0xC000_0102


def test_msrs_keep_what_is_written() -> None:
    values = {LSTAR: 0x1234_5000, STAR: 0x0018_0008 << 32, KERNEL_GS_BASE: 0xFFFF_8000_0000_1000}
    with X86KVM() as kvm, kvm.create_vm() as vm:
        vcpu = vm.create_vcpu(0)
        vcpu.set_cpuid2(kvm.get_supported_cpuid())
        vcpu.set_msrs(values)
        assert vcpu.get_msrs(values) == values
        assert vcpu.get_msrs([]) == {}
        assert set(values) <= set(kvm.get_msr_index_list())


def test_refused_msr_is_named_and_earlier_ones_are_written() -> None:
    if Path("/sys/module/kvm/parameters/ignore_msrs").read_text().strip() == "Y":
        pytest.skip("this host's KVM ignores unknown MSRs (kvm.ignore_msrs=1)")
    with X86KVM() as kvm, kvm.create_vm() as vm:
        vcpu = vm.create_vcpu(0)
        vcpu.set_cpuid2(kvm.get_supported_cpuid())
        with pytest.raises(KvmError, match=r"KVM_SET_MSRS .*refuses MSR 0xdead0001 the value 0x5"):
            vcpu.set_msrs({LSTAR: 0x7000, 0xDEAD_0001: 5, STAR: 1})
        with pytest.raises(KvmError, match=r"KVM_GET_MSRS .*refuses MSR 0xdead0001$"):
            vcpu.get_msrs([LSTAR, 0xDEAD_0001])
        assert vcpu.get_msrs([LSTAR, STAR]) == {LSTAR: 0x7000, STAR: 0}


def test_feature_msrs_are_read_from_the_device() -> None:
    with X86KVM() as kvm:
        assert set(kvm.get_feature_msrs()) == set(kvm.get_msr_feature_index_list())


def test_unknown_msrs_can_be_answered_by_user_space() -> None:
    index, answer = 0x1234_5678, 0x1111_2222_3333_4444
    code = b"\x0f\x32\x0f\x30" + HLT  # rdmsr; wrmsr
    with real_mode_guest(code) as guest:
        guest.vm.send_unknown_msrs_to_user_space()
        guest.start_at(CODE, rcx=index)
        read = guest.vcpu.run()
        assert isinstance(read, MsrExit)
        assert (read.index, read.is_write) == (index, False)
        read.value, read.refuse = answer, False
        write = guest.vcpu.run()
        assert isinstance(write, MsrExit)
        assert (write.index, write.is_write, write.value) == (index, True, answer)
        write.refuse = False
        assert isinstance(guest.vcpu.run(), HltExit)


def test_registers_keep_what_is_written() -> None:
    with real_mode_guest(HLT) as guest:
        vcpu = guest.vcpu
        regs = vcpu.get_regs()
        regs.r15, regs.rbp = 0xFEDC_BA98_7654_3210, 0x1122
        vcpu.set_regs(regs)
        assert (vcpu.get_regs().r15, vcpu.get_regs().rbp) == (0xFEDC_BA98_7654_3210, 0x1122)
        with pytest.raises(OverflowError):
            regs.rax = 1 << 64

        sregs = vcpu.get_sregs()
        sregs.idt.base, sregs.fs.selector, sregs.fs.base = 0x5000, 0x123, 0x1230
        vcpu.set_sregs(sregs)
        again = vcpu.get_sregs()
        assert (again.idt.base, again.fs.selector, again.fs.base) == (0x5000, 0x123, 0x1230)

        fpu = vcpu.get_fpu()
        fpu.fcw, fpu.xmm[3][0] = 0x27F, 0x5A
        vcpu.set_fpu(fpu)
        assert (vcpu.get_fpu().fcw, vcpu.get_fpu().xmm[3][0]) == (0x27F, 0x5A)

        vcpu.set_debugregs(DebugRegs(db=[0x1000, 0x2000], dr6=0xFFFF_0FF0, dr7=0x400))
        assert list(vcpu.get_debugregs().db) == [0x1000, 0x2000, 0, 0]


def test_pdptes_travel_in_sregs2() -> None:
    with long_mode_guest(HLT) as guest:
        if not guest.kvm.check_extension("KVM_CAP_SREGS2"):
            pytest.skip("this kernel has no KVM_CAP_SREGS2")
        sregs = guest.vcpu.get_sregs2()
        assert (sregs.cr3, sregs.cs.l) == (PML4, 1)
        sregs.gs.base = 0x7000
        guest.vcpu.set_sregs2(sregs)
        assert guest.vcpu.get_sregs().gs.base == 0x7000


def test_extended_state_round_trips() -> None:
    with long_mode_guest(HLT) as guest:
        vcpu = guest.vcpu
        area = bytearray(vcpu.get_xsave())
        assert len(area) >= 4096
        xmm0 = slice(160, 176)  # of the legacy region: Intel SDM vol. 1, 13.4.1
        area[xmm0] = b"sixteen bytes..."
        area[512] |= 2  # XSTATE_BV: the SSE state is there
        vcpu.set_xsave(bytes(area))
        assert vcpu.get_xsave()[xmm0] == b"sixteen bytes..."
        with pytest.raises(KvmError, match=r"XSAVE area of 4 bytes instead of"):
            vcpu.set_xsave(b"tiny")

        vcpu.set_xcrs({0: 3})
        assert vcpu.get_xcrs()[0] == 3


def test_events_and_mp_state_round_trip() -> None:
    with real_mode_guest(HLT, irqchip=True) as guest:
        vcpu = guest.vcpu
        vcpu.nmi()
        events = vcpu.get_vcpu_events()
        assert events.nmi.pending or events.nmi.injected
        events.nmi.pending = events.nmi.injected = 0
        vcpu.set_vcpu_events(events)
        assert not vcpu.get_vcpu_events().nmi.pending

        running = vcpu.get_mp_state()
        halted = 3  # KVM_MP_STATE_HALTED
        vcpu.set_mp_state(halted)
        assert vcpu.get_mp_state() == halted != running


def test_local_apic_round_trips_and_second_vcpu_has_its_own_id() -> None:
    spurious = 0xF0  # Intel SDM vol. 3A, table 11-1
    with X86KVM() as kvm, kvm.create_vm() as vm:
        vm.create_irqchip()
        vcpus = [vm.create_vcpu(id) for id in range(2)]
        for id, vcpu in enumerate(vcpus):
            assert vcpu.get_lapic()[0x23] == id
        state = bytearray(vcpus[0].get_lapic())
        state[spurious : spurious + 2] = b"\xff\x01"
        vcpus[0].set_lapic(bytes(state))
        assert vcpus[0].get_lapic()[spurious : spurious + 2] == b"\xff\x01"
        with pytest.raises(KvmError, match="3 bytes instead of 1024"):
            vcpus[0].set_lapic(b"abc")


def test_no_local_apic_without_irqchip_is_explained() -> None:
    with X86KVM() as kvm, kvm.create_vm() as vm:
        vcpu = vm.create_vcpu(0)
        with pytest.raises(KvmError, match="no in-kernel interrupt controller"):
            vcpu.get_lapic()


def test_interrupt_lines_and_irqfds_reach_the_pic() -> None:
    irr = 9  # of struct kvm_irqchip: 8 bytes of header, last_irr, irr
    with X86KVM() as kvm, kvm.create_vm() as vm:
        vm.create_irqchip()
        vm.create_pit2()
        vm.irq_line(1, 1)
        assert vm.get_irqchip(PIC_MASTER)[irr] & 0b0010
        fd = os.eventfd(0)
        try:
            vm.irqfd(fd, 4)
            os.eventfd_write(fd, 1)
            end = time.monotonic() + 5
            while not vm.get_irqchip(PIC_MASTER)[irr] & 0b1_0000:  # a kernel thread delivers it
                assert time.monotonic() < end
            vm.irqfd(fd, 4, deassign=True)
        finally:
            os.close(fd)
        cleared = bytearray(vm.get_irqchip(PIC_MASTER))
        cleared[irr] = 0
        vm.set_irqchip(bytes(cleared))
        assert vm.get_irqchip(PIC_MASTER)[irr] == 0
        vm.set_pit2(vm.get_pit2())


def test_split_irqchip_has_local_apics_only() -> None:
    with X86KVM() as kvm, kvm.create_vm() as vm:
        vm.create_split_irqchip()
        assert len(vm.create_vcpu(0).get_lapic()) == 1024
        with pytest.raises(KvmError, match="KVM_GET_IRQCHIP"):
            vm.get_irqchip(PIC_MASTER)


def test_ioeventfd_counts_writes_without_exits() -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        with real_mode_guest(b"\xe6\x10\xe6\x10\xe6\x11" + HLT) as guest:
            guest.vm.ioeventfd(fd, 0x10, 1, pio=True)
            io = guest.vcpu.run()
            assert isinstance(io, IoExit)
            assert io.port == 0x11
            assert os.eventfd_read(fd) == 2
    finally:
        os.close(fd)


def test_clock_can_be_set() -> None:
    with X86KVM() as kvm, kvm.create_vm() as vm:
        clock = vm.get_clock()
        hour = 3600 * 10**9
        clock.clock, clock.flags = hour, 0
        vm.set_clock(clock)
        assert hour <= vm.get_clock().clock < hour + 60 * 10**9


def test_tsc_frequency_is_known() -> None:
    with X86KVM() as kvm, kvm.create_vm() as vm:
        assert vm.create_vcpu(0).get_tsc_khz() > 100_000


def test_single_step_stops_after_each_instruction() -> None:
    with long_mode_guest(NOP * 3 + HLT) as guest:
        guest.start_at(CODE)
        guest.vcpu.set_guest_debug(single_step=True)
        for step in (1, 2, 3):
            exit = guest.vcpu.run()
            assert isinstance(exit, DebugExit)
            assert exit.pc == guest.vcpu.get_regs().rip == CODE + step
        guest.vcpu.set_guest_debug()
        assert isinstance(guest.vcpu.run(), HltExit)


@pytest.mark.skipif(
    "QEMU TCG CPU" in Path("/proc/cpuinfo").read_text(),
    reason="on a host that QEMU TCG emulates, guests run past hardware breakpoints",
)
def test_hardware_breakpoint_stops_before_its_instruction() -> None:
    with long_mode_guest(NOP * 8 + HLT) as guest:
        guest.start_at(CODE)
        guest.vcpu.set_guest_debug(breakpoints=[Breakpoint(CODE + 5)])
        exit = guest.vcpu.run()
        assert isinstance(exit, DebugExit)
        assert exit.pc == guest.vcpu.get_regs().rip == CODE + 5
        guest.vcpu.set_guest_debug()
        assert isinstance(guest.vcpu.run(), HltExit)


def test_impossible_breakpoints_are_refused() -> None:
    with long_mode_guest(HLT) as guest:
        with pytest.raises(KvmError, match="5 hardware breakpoints: x86 has 4"):
            guest.vcpu.set_guest_debug(breakpoints=[Breakpoint(CODE)] * 5)
        with pytest.raises(KvmError, match="length 3 instead of"):
            guest.vcpu.set_guest_debug(breakpoints=[Breakpoint(CODE, BreakpointKind.WRITE, 3)])


def test_linear_addresses_are_translated() -> None:
    with long_mode_guest(HLT) as guest:
        here = guest.vcpu.translate(CODE + 5)
        assert (here.physical_address, here.valid) == (CODE + 5, True)
        assert not guest.vcpu.translate(0x4000_0000).valid
