"""The keyboard controller, probed as Linux and SeaBIOS probe it: nothing may have to time out."""

from __future__ import annotations

import pytest

from cpufw_x86.devices import I8042, PortBus

FULL, INPUT_FULL, FROM_MOUSE, TIMEOUT = 0x01, 0x02, 0x20, 0x40


class Bench:
    def __init__(self) -> None:
        self.resets = 0
        self.levels: list[bool] = []
        self.bus = PortBus()
        self.controller = I8042(self._reset, self.levels.append)
        self.bus.add(self.controller)

    def _reset(self) -> None:
        self.resets += 1

    @property
    def status(self) -> int:
        return self.bus.read(0x64, 1)

    def command(self, command: int, *data: int) -> None:
        assert self.status & INPUT_FULL == 0, "a driver would wait"
        self.bus.write(0x64, 1, command)
        for each in data:
            assert self.status & INPUT_FULL == 0
            self.bus.write(0x60, 1, each)

    def answer(self) -> int:
        assert self.status & FULL, "a driver would wait half a second"
        value = self.bus.read(0x60, 1)
        assert self.status & FULL == 0
        return value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nothing_waits_to_be_read_at_the_start(bench: Bench) -> None:
    assert bench.status & FULL == 0
    assert bench.status != 0xFF, "all ones would be no controller"


def test_self_tests(bench: Bench) -> None:
    bench.command(0xAA)
    assert bench.answer() == 0x55
    bench.command(0xAB)
    assert bench.answer() == 0x00


def test_command_byte_reads_back_as_written(bench: Bench) -> None:
    bench.command(0x60, 0x65)
    bench.command(0x20)
    assert bench.answer() == 0x65
    bench.command(0xAD)
    bench.command(0x20)
    assert bench.answer() == 0x75
    bench.command(0xAE)
    bench.command(0x20)
    assert bench.answer() == 0x65


def test_keyboard_does_not_answer_and_the_controller_says_so_at_once(bench: Bench) -> None:
    for byte in (0xFF, 0xF2, 0xED):
        bench.bus.write(0x60, 1, byte)
        assert bench.status & TIMEOUT
        assert bench.answer() == 0xFE


def test_there_is_no_mouse_port(bench: Bench) -> None:
    bench.command(0xD3, 0x5A)  # Linux: loop a byte through the mouse port
    assert bench.status & FROM_MOUSE == 0
    assert bench.answer() == 0x5A
    bench.command(0xA9)  # test its lines
    assert bench.answer() not in (0x00, 0xFA, 0xFF)
    bench.command(0xD4, 0xFF)  # a byte for the mouse
    assert bench.status & (FROM_MOUSE | TIMEOUT) == FROM_MOUSE | TIMEOUT
    assert bench.answer() == 0xFE


def test_interrupt_while_there_is_something_to_read(bench: Bench) -> None:
    bench.command(0x60, 0x01)
    bench.bus.write(0x60, 1, 0xF2)
    assert bench.levels == [True]
    bench.answer()
    assert bench.levels == [True, False]
    bench.command(0x60, 0x00)
    bench.bus.write(0x60, 1, 0xF2)
    assert bench.levels == [True, False], "interrupts are off"


def test_a20_and_reset_through_the_output_port(bench: Bench) -> None:
    bench.command(0xD0)
    assert bench.answer() & 0x03 == 0x03, "A20 on, reset not pulled"
    bench.command(0xD1, 0xDD)
    bench.command(0xD0)
    assert bench.answer() == 0xDD
    assert bench.resets == 0
    bench.command(0xD1, 0x02)
    assert bench.resets == 1


def test_a_command_forgets_the_one_that_waits_for_data(bench: Bench) -> None:
    bench.command(0xD1)
    bench.command(0xAA)
    assert bench.answer() == 0x55
    bench.bus.write(0x60, 1, 0x00)  # for the keyboard, not the output port
    assert bench.resets == 0


def test_state_survives_a_save_between_command_and_data(bench: Bench) -> None:
    bench.command(0x60, 0x01)
    bench.command(0xD2)
    other = Bench()
    I8042.vmstate.load(other.controller, I8042.vmstate.save(bench.controller))
    other.bus.write(0x60, 1, 0x1C)
    assert other.answer() == 0x1C
    assert other.levels == [True, False]
    other.controller.reset()
    other.command(0x20)
    assert other.answer() & 0x01 == 0
