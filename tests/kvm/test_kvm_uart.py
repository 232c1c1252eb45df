"""The serial port that the run loop serves."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from kvm_guests import CODE, NO_MEMORY_HERE, Guest, real_mode_guest

from cpufw.errors import KvmError
from cpufw.kvm import Exit, HltExit, Interrupted, IoExit, OutputReady, Uart16550

pytestmark = pytest.mark.kvm

COM1 = 0x3F8
HLT = b"\xf4"
MOV_DX_COM1 = b"\xba\xf8\x03"
# Offsets of the registers from COM1, and bits, are the PC16550D's.
IER, LCR, MCR, LSR, MSR, SCR = 1, 3, 4, 5, 6, 7
IIR = FCR = 2


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


def test_full_buffer_does_not_hold_a_kicked_vcpu() -> None:
    length = 65_600
    with real_mode_guest(COUNT_WITHOUT_NEWLINES) as guest:
        guest.start_at(CODE, rbx=length)
        uart = guest.vm.add_uart(COM1)
        while not uart.is_full:
            assert isinstance(guest.vcpu.run(), OutputReady)
        for more in (1, 2):  # each time the access under way is finished, so registers are right
            assert isinstance(guest.vcpu.run(), OutputReady)
            guest.vcpu.kick()
            while isinstance(exit := guest.vcpu.run(), OutputReady):
                pass
            assert isinstance(exit, Interrupted)
            assert guest.vcpu.get_regs().rcx == 65_536 + more - 1
        output = uart.drain() + uart.drain()
        assert len(output) == 65_536 + 2
        rest, exit, _ = run_and_collect(guest, uart)
        assert isinstance(exit, HltExit)
        assert output + rest == bytes(0x80 | number % 256 for number in range(length))


def test_guest_reads_what_was_pushed() -> None:
    with real_mode_guest(report(LSR) + 2 * report(0) + report(LSR) + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        assert uart.push(b"ok") == 2
        assert reports(guest) == [0x61, ord("o"), ord("k"), 0x60]


def test_input_takes_no_more_than_there_is_room_for() -> None:
    with real_mode_guest(HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        taken = sum(uart.push(bytes(10_000)) for _ in range(3))
        assert 16 <= taken < 10_000
        assert uart.push(b"x") == 0
        assert uart.push_break() is False


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
    # The probe Linux does: OUT2 and RTS looped back must read as DCD and CTS. Of the four lines
    # only DSR changes, and says so until it is read.
    code = write(MCR, 0x1A) + report(MSR) + write(0, 0x55) + report(0) + report(MSR)
    code += write(MCR, 0) + report(MSR)
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        assert reports(guest) == [0x92, 0x55, 0x90, 0xB2]
        assert uart.drain() == b""


OUT2 = write(MCR, 0x08)


class Line(NamedTuple):
    """The interrupt line, as the interrupt controller's edge detection sees it."""

    fd: int

    def rises(self) -> int:
        """How often it rose since the last time."""
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0


@pytest.fixture
def line() -> Iterator[Line]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield Line(fd)
    os.close(fd)


def test_interrupts_are_identified_acknowledged_and_signalled(line: Line) -> None:
    code = OUT2 + write(FCR, 0x01) + report(IIR) + write(IER, 0x03) + 3 * report(IIR) + report(0)
    with real_mode_guest(code + report(IIR) + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        uart.set_irq_fd(line.fd)
        assert guest.vcpu.run() is not None  # IIR: nothing
        assert line.rises() == 0
        transmitter_empty, nothing = guest.vcpu.run(), guest.vcpu.run()
        assert isinstance(transmitter_empty, IoExit)
        assert isinstance(nothing, IoExit)
        assert (transmitter_empty.value, nothing.value) == (0xC2, 0xC1)
        assert line.rises() == 1
        uart.push(b"!")
        assert line.rises() == 1
        assert reports(guest) == [0xC4, ord("!"), 0xC1]


@pytest.mark.parametrize(("mcr", "rises"), [(0x00, 0), (0x08, 1), (0x0B, 1), (0x18, 0)])
def test_line_reaches_the_pc_only_through_out2_and_not_in_loopback(
    mcr: int, rises: int, line: Line
) -> None:
    with real_mode_guest(write(MCR, mcr) + write(IER, 0x02) + report(IIR) + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        uart.set_irq_fd(line.fd)
        assert reports(guest) == [0x02]  # the chip itself interrupts either way
        assert line.rises() == rises


def test_raising_out2_later_lets_a_waiting_interrupt_through(line: Line) -> None:
    with real_mode_guest(write(IER, 0x02) + report(SCR) + OUT2 + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        uart.set_irq_fd(line.fd)
        guest.vcpu.run()
        assert line.rises() == 0
        guest.vcpu.run()
        assert line.rises() == 1


def test_transmitter_interrupt_comes_when_it_is_enabled_again(line: Line) -> None:
    # Linux's test at start-up: cleared by IIR, masked, enabled again, it must be there again.
    once = write(IER, 0x02) + report(IIR) + write(IER, 0x00) + report(IIR)
    # But enabling what is enabled raises nothing.
    code = OUT2 + once + once + write(IER, 0x02) + report(IIR) + write(IER, 0x02) + report(IIR)
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        uart.set_irq_fd(line.fd)
        assert reports(guest) == [0x02, 0x01, 0x02, 0x01, 0x02, 0x01]
        assert line.rises() == 3


def test_each_byte_sent_is_an_edge_also_if_nobody_reads_iir(line: Line) -> None:
    code = OUT2 + write(IER, 0x02) + report(SCR) + write(0, 65) + report(SCR) + write(0, 66)
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        uart.set_irq_fd(line.fd)
        for _ in range(3):
            guest.vcpu.run()
            assert line.rises() == 1
        assert uart.drain() == b"AB"


def test_second_cause_holds_the_line_until_both_are_served(line: Line) -> None:
    # A received byte and the transmitter: the line stays up, IIR tells one after the other.
    code = OUT2 + write(IER, 0x03) + report(SCR) + report(IIR) + report(0) + 2 * report(IIR)
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        uart.set_irq_fd(line.fd)
        guest.vcpu.run()
        assert line.rises() == 1
        uart.push(b"a")
        assert reports(guest) == [0x04, ord("a"), 0x02, 0x01]
        assert line.rises() == 0
        uart.push(b"b")  # it was down: that is an edge
        assert line.rises() == 1


@pytest.mark.parametrize(
    ("fcr", "identified"),
    [
        (0x01, [0xC4, 0xC4, 0xC4]),
        (0x41, [0xCC, 0xC4, 0xC4]),  # from four
        (0x81, [0xCC, 0xCC, 0xC4]),  # from eight
        (0xC1, [0xCC, 0xCC, 0xCC]),  # from fourteen
    ],
)
def test_fifo_below_its_trigger_level_times_out(fcr: int, identified: list[int]) -> None:
    code = write(FCR, fcr) + write(IER, 0x01) + report(SCR) + 3 * report(IIR)
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        guest.vcpu.run()
        seen = []
        for text in (b"abc", b"defg", b"hijkl"):
            uart.push(text)
            io = guest.vcpu.run()
            assert isinstance(io, IoExit)
            seen.append(io.value)
        assert seen == identified


def test_clearing_the_fifo_loses_only_what_was_received() -> None:
    # As Linux clears it when the port is opened; what is on its way comes afterwards.
    clear = write(FCR, 0x01) + write(FCR, 0x07) + write(FCR, 0x00)
    code = write(FCR, 0x01) + report(LSR) + clear + report(LSR) + 3 * report(0) + report(LSR)
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        assert isinstance(guest.vcpu.run(), IoExit)
        assert uart.push(b"0123456789abcdefXYZ") == 19
        assert reports(guest) == [0x61, ord("X"), ord("Y"), ord("Z"), 0x60]


def test_loopback_overruns_and_leaves_the_line_alone() -> None:
    # In loopback nothing holds the sender back: the seventeenth is one too many.
    code = write(FCR, 0x01) + write(MCR, 0x10) + report(SCR)
    code += b"".join(write(0, byte) for byte in range(17))
    code += 2 * report(LSR) + 17 * report(0) + write(MCR, 0x00) + report(0)
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        guest.vcpu.run()
        uart.push(b"l")
        assert reports(guest) == [0x63, 0x61, *range(16), 0, ord("l")]
        assert uart.drain() == b""


def test_break_is_a_null_character_that_lsr_tells_of(line: Line) -> None:
    code = OUT2 + write(FCR, 0x01) + write(IER, 0x04) + report(LSR) + report(LSR) + report(0)
    code += report(IIR) + 2 * report(LSR) + report(IIR) + 2 * report(0) + report(LSR)
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        uart.set_irq_fd(line.fd)
        guest.vcpu.run()
        uart.push(b"a")
        assert uart.push_break()
        uart.push(b"z")
        # Bit 7 tells of it while it is behind the "a"; then it is an interrupt of its own.
        assert reports(guest) == [0xE1, ord("a"), 0xC6, 0xF1, 0x61, 0xC1, 0, ord("z"), 0x60]
        assert line.rises() == 1


def test_modem_status_interrupt_tells_of_changes() -> None:
    code = write(MCR, 0x10) + report(MSR) + write(IER, 0x08) + report(IIR)
    code += write(MCR, 0x16) + report(IIR) + report(MSR) + report(IIR)
    code += write(MCR, 0x12) + report(MSR)  # the ring indicator ends
    with real_mode_guest(code + HLT) as guest:
        guest.vm.add_uart(COM1)
        assert reports(guest) == [0x0B, 0x01, 0x00, 0x51, 0x01, 0x14]


def test_rts_holds_input_back_from_a_guest_that_takes_interrupts(line: Line) -> None:
    code = write(FCR, 0x01) + write(MCR, 0x0A) + write(IER, 0x01) + write(MCR, 0x08)
    code += report(SCR) + report(LSR)
    code += write(IER, 0x00) + report(LSR) + report(0)  # whoever polls gets it
    code += write(IER, 0x01) + report(SCR) + report(0) + write(MCR, 0x0A) + report(0) + report(LSR)
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        uart.set_irq_fd(line.fd)
        guest.vcpu.run()
        uart.push(b"x")
        seen = [io.value for io in (guest.vcpu.run() for _ in range(4)) if isinstance(io, IoExit)]
        assert seen == [0x60, 0x61, ord("x"), 0]
        assert line.rises() == 0
        uart.push(b"y")
        assert reports(guest) == [0, ord("y"), 0x60]
        assert line.rises() == 1


def test_room_is_told_once_to_whoever_was_refused(line: Line) -> None:
    drained = 3000
    # mov cx, drained; mov dx, COM1; mov di, 0x2000; rep insb; out 0x80, al
    code = b"\xb9" + drained.to_bytes(2, "little") + MOV_DX_COM1 + b"\xbf\x00\x20\xf3\x6c\xe6\x80"
    with real_mode_guest(code + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        uart.set_room_fd(line.fd)
        text = count(4096)
        assert uart.push(text) == len(text)
        while uart.push(b"x"):
            pass
        assert line.rises() == 0
        assert isinstance(guest.vcpu.run(), IoExit)
        assert line.rises() == 1
        assert guest.memory.read(0x2000, drained) == text[:drained]


def test_output_descriptor_tells_once_until_it_is_drained(line: Line) -> None:
    code = write(0, 10) + write(0, 10) + report(SCR) + write(0, 10) + report(SCR) + HLT
    with real_mode_guest(code) as guest:
        uart = guest.vm.add_uart(COM1)
        uart.set_output_fd(line.fd)
        time.sleep(0.03)
        assert isinstance(guest.vcpu.run(), IoExit)  # no OutputReady for a line that waited
        assert (line.rises(), uart.drain(), uart.has_output) == (1, b"\n\n", False)
        assert isinstance(guest.vcpu.run(), IoExit)
        assert line.rises() == 1


def test_discarded_output_never_waits() -> None:
    length = 70_000
    with real_mode_guest(COUNT_TO_EBX) as guest:
        guest.start_at(CODE, rbx=length)
        uart = guest.vm.add_uart(COM1)
        uart.discard_output()
        assert isinstance(guest.vcpu.run(), HltExit)
        assert (guest.vcpu.get_regs().rcx, uart.drain()) == (length, b"")


SETTINGS = write(LCR, 0x83) + write(0, 0x0C) + write(IER, 0x01) + write(LCR, 0x03)
SETTINGS += write(FCR, 0x81) + write(MCR, 0x0B) + write(SCR, 0xA5) + write(IER, 0x07)


def test_state_makes_another_uart_the_same() -> None:
    reading = report(IIR) + 2 * report(IER) + report(LCR) + report(MCR) + report(SCR) + report(LSR)
    reading += report(0) + report(LSR) + 19 * report(0) + report(LSR)
    with real_mode_guest(SETTINGS + report(SCR) + reading + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        guest.vcpu.run()
        uart.push(b"a")
        uart.push_break()
        uart.push(b"0123456789abcdefgh")
        state = uart.get_state()
        assert state["divisor"] == 0x10C
        seen = reports(guest)
    with real_mode_guest(reading + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        uart.set_state(state)
        assert uart.get_state() == state
        assert reports(guest) == seen
        assert seen[0] == 0xC4
        assert seen[-2:] == [ord("h"), 0x60]


def test_reset_makes_it_as_new_but_for_what_is_on_its_way() -> None:
    with real_mode_guest(SETTINGS + write(0, 65) + report(SCR) + HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        fresh = uart.get_state()
        guest.vcpu.run()
        uart.push(b"0123456789abcdefgh")
        uart.reset()
        state = uart.get_state()
        assert state.pop("input") == [ord("g"), ord("h")]
        fresh.pop("input")
        assert state == fresh
        assert uart.drain() == b"A"


def test_state_that_cannot_be_is_refused() -> None:
    with real_mode_guest(HLT) as guest:
        uart = guest.vm.add_uart(COM1)
        state = uart.get_state()
        changes: list[dict[str, Any]] = [
            {"fifo": [65] * 17},
            {"input": [0] * 5000},
            {"ier": 256},
            {"mcr": "on"},
        ]
        for change in changes:
            with pytest.raises(KvmError, match="not the state of a UART"):
                uart.set_state(state | change)
        del state["lcr"]
        with pytest.raises(KvmError, match="lcr"):
            uart.set_state(state)


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
