"""The serial port that the run loop serves."""

from __future__ import annotations

import os
import time

import pytest
from kvm_guests import CODE, NO_MEMORY_HERE, Guest, real_mode_guest

from cpufw.errors import KvmError
from cpufw.kvm import Exit, HltExit, IoExit, OutputReady, Uart16550

pytestmark = pytest.mark.kvm

COM1 = 0x3F8
HLT = b"\xf4"
MOV_DX_COM1 = b"\xba\xf8\x03"
# Offsets of the registers from COM1, and bits, are the PC16550D's.
IER, IIR, LCR, MCR, LSR, MSR, SCR = 1, 2, 3, 4, 5, 6, 7


def write(register: int, value: int) -> bytes:
    """Code: mov dx, COM1 + register; mov al, value; out dx, al."""
    return b"\xba" + (COM1 + register).to_bytes(2, "little") + bytes([0xB0, value, 0xEE])


def report(register: int) -> bytes:
    """Code: mov dx, COM1 + register; in al, dx; out 0x80, al (which exits)."""
    return b"\xba" + (COM1 + register).to_bytes(2, "little") + b"\xec\xe6\x80"


def reports(guest: Guest) -> list[int]:
    """What the guest reports until it halts."""
    seen = []
    while isinstance(io := guest.vcpu.run(), IoExit):
        assert io.port == 0x80
        seen.append(io.value)
    assert isinstance(io, HltExit)
    return seen


def run_and_collect(guest: Guest, uart: Uart16550) -> tuple[bytes, Exit, int]:
    """Run as a machine does: output, the exit that was not OutputReady, how many were."""
    output, ready = b"", 0
    while isinstance(exit := guest.vcpu.run(), OutputReady):
        assert exit.uart is uart
        output += uart.drain()
        ready += 1
    return output + uart.drain(), exit, ready


def test_output_arrives_in_order() -> None:
    with real_mode_guest(b"".join(write(0, byte) for byte in b"hello\n") + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        output, exit, _ = run_and_collect(guest, uart)
        assert output == b"hello\n"
        assert isinstance(exit, HltExit)
        assert uart.drain() == b""


def test_string_output_arrives_too() -> None:
    with real_mode_guest(MOV_DX_COM1 + b"\xf3\x6e" + HLT) as guest:  # rep outsb
        uart = guest.vm.add_uart(COM1)
        text = bytes(range(256))
        guest.memory.write(0x2000, text)
        guest.start_at(CODE, rsi=0x2000, rcx=len(text))
        output, exit, _ = run_and_collect(guest, uart)
        assert isinstance(exit, HltExit)
        assert output == text


def test_waiting_line_comes_back_to_python() -> None:
    with real_mode_guest(write(0, ord("a")) + write(0, ord("\n")) + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        assert uart.drain() == b""
        time.sleep(0.05)
        exit = guest.vcpu.run()
        assert isinstance(exit, OutputReady)
        assert exit.uart.drain() == b"a\n"
        assert isinstance(guest.vcpu.run(), HltExit)


# mov dx, COM1; again: mov al, cl; out dx, al; inc ecx; cmp ecx, ebx; jne again; hlt
COUNT_TO_EBX = MOV_DX_COM1 + b"\x88\xc8\xee\x66\x41\x66\x39\xd9\x75\xf6" + HLT


def count(length: int) -> bytes:
    return bytes(number % 256 for number in range(length))


def test_fast_writer_costs_few_returns_and_no_byte() -> None:
    length = 40_000
    with real_mode_guest(COUNT_TO_EBX) as guest:
        guest.start_at(CODE, rbx=length)
        uart = guest.vm.add_uart(COM1)
        began = time.monotonic()
        output, exit, ready = run_and_collect(guest, uart)
        seconds = time.monotonic() - began
        assert isinstance(exit, HltExit)
        assert output == count(length)
        assert ready <= seconds / 0.015 + 3


# The same without newlines: or al, 0x80 before the out.
COUNT_WITHOUT_NEWLINES = MOV_DX_COM1 + b"\x88\xc8\x0c\x80\xee\x66\x41\x66\x39\xd9\x75\xf4" + HLT


def test_full_buffer_holds_the_guest_and_loses_nothing() -> None:
    buffer, length = 65_536, 65_600
    expected = bytes(0x80 | number % 256 for number in range(length))
    with real_mode_guest(COUNT_WITHOUT_NEWLINES) as guest:
        guest.start_at(CODE, rbx=length)
        uart = guest.vm.add_uart(COM1)
        # A caller that never collects is told at each byte of the last quarter, and then again
        # and again while the guest gets no further.
        for _ in range(buffer // 4 + 100):
            assert isinstance(guest.vcpu.run(), OutputReady)
        output = uart.drain()
        assert output == expected[:buffer]
        rest, exit, _ = run_and_collect(guest, uart)
        assert isinstance(exit, HltExit)
        assert output + rest == expected


def test_guest_reads_what_was_pushed() -> None:
    with real_mode_guest(report(LSR) + 2 * report(0) + report(LSR) + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        assert uart.push(b"ok") == 2
        assert reports(guest) == [0x61, ord("o"), ord("k"), 0x60]


def test_input_takes_no_more_than_there_is_room_for() -> None:
    with real_mode_guest(HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        taken = uart.push(bytes(10_000))
        assert 16 <= taken < 10_000
        assert uart.push(b"x") == 0


def test_divisor_latch_hides_data_and_interrupt_registers() -> None:
    code = (
        write(IER, 0x05)
        + write(LCR, 0x83)
        + write(0, 0x0C)
        + write(IER, 0x01)
        + report(0)
        + report(IER)
        + write(LCR, 0x03)
        + report(IER)
        + report(LCR)
        + write(SCR, 0xA5)
        + report(SCR)
    )
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        assert reports(guest) == [0x0C, 0x01, 0x05, 0x03, 0xA5]
        assert uart.drain() == b""


def test_loopback_mirrors_modem_lines_and_data() -> None:
    # The probe Linux does: OUT2 and RTS looped back must read as DCD and CTS.
    code = write(MCR, 0x1A) + report(MSR) + write(0, 0x55) + report(0) + write(MCR, 0) + report(MSR)
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        assert reports(guest) == [0x90, 0x55, 0xB0]
        assert uart.drain() == b""


def test_interrupts_are_identified_acknowledged_and_signalled() -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        code = write(IIR, 0x01) + report(IIR) + write(IER, 0x03) + 3 * report(IIR) + report(0)
        with real_mode_guest(code + report(IIR) + HLT) as guest:
            uart = guest.vm.add_uart(COM1)
            uart.set_irq_fd(fd)
            assert guest.vcpu.run() is not None  # IIR: nothing
            assert os_eventfd_count(fd) == 0
            transmitter_empty, nothing = guest.vcpu.run(), guest.vcpu.run()
            assert isinstance(transmitter_empty, IoExit)
            assert isinstance(nothing, IoExit)
            assert (transmitter_empty.value, nothing.value) == (0xC2, 0xC1)
            assert os_eventfd_count(fd) == 1
            uart.push(b"!")
            assert os_eventfd_count(fd) == 1
            assert reports(guest) == [0xC4, ord("!"), 0xC1]
    finally:
        os.close(fd)


def os_eventfd_count(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def test_uart_in_memory_is_the_same_uart() -> None:
    with real_mode_guest(b"\xc6\x06\x00\x00\x41\xa0\x05\x00" + HLT) as guest:
        uart = guest.vm.add_uart(NO_MEMORY_HERE, mmio=True)
        sregs = guest.vcpu.get_sregs()
        sregs.ds.base = NO_MEMORY_HERE
        guest.vcpu.set_sregs(sregs)
        assert isinstance(guest.vcpu.run(), HltExit)
        assert uart.drain() == b"A"
        assert guest.vcpu.get_regs().rax == 0x60


def test_second_device_on_the_same_ports_is_refused() -> None:
    with real_mode_guest(HLT) as guest:
        guest.vm.add_uart(COM1)
        guest.vm.add_uart(COM1 - 8)
        with pytest.raises(KvmError, match="no UART at 0x3ff: another device is there"):
            guest.vm.add_uart(COM1 + 7)
