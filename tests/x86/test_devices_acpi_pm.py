"""The ACPI fixed hardware: what makes the SCI line high, what turns the machine off."""

from __future__ import annotations

import threading

import pytest

from cpufw_x86.devices import AcpiPm

PM1_STS, PM1_EN, PM1_CNT, PM_TMR, GPE0_STS, GPE0_EN = 0x00, 0x02, 0x04, 0x08, 0x20, 0x28
POWER_BUTTON = 0x100


class Board:
    """A device with its SCI line, its power and a clock set by hand (ns)."""

    def __init__(self, timer_bits: int = 24) -> None:
        self.now = 1_000
        self.levels: list[bool] = []
        self.offs = 0
        self.pm = AcpiPm(
            self.levels.append, self.power_off, timer_bits=timer_bits, clock=lambda: self.now
        )

    def power_off(self) -> None:
        self.offs += 1
        self.pm.read(PM1_STS, 2)  # the callback may use the device


def test_it_sits_where_the_fadt_says() -> None:
    assert Board().pm.ports == range(0x600, 0x630)


@pytest.mark.parametrize("enable_first", [True, False])
def test_power_button_raises_sci_until_cleared_by_writing_one(enable_first: bool) -> None:
    board = Board()
    if enable_first:
        board.pm.write(PM1_EN, 2, POWER_BUTTON)
        board.pm.press_power_button()
    else:
        board.pm.press_power_button()
        assert board.levels == [], "nobody listens yet"
        board.pm.write(PM1_EN, 2, POWER_BUTTON)
    assert board.levels == [True]
    assert board.pm.read(PM1_STS, 2) == POWER_BUTTON
    board.pm.write(PM1_STS, 2, 0)
    assert board.levels == [True], "writing zero clears nothing"
    board.pm.write(PM1_STS, 2, POWER_BUTTON)
    assert board.levels == [True, False]
    assert board.pm.read(PM1_STS, 2) == 0


@pytest.mark.parametrize("bit", [0, 2, 7, 8, 63])
def test_gpe_raises_sci_when_enabled(bit: int) -> None:
    board = Board()
    byte, mask = bit // 8, 1 << bit % 8
    board.pm.write(GPE0_EN + byte, 1, mask)
    board.pm.raise_gpe(bit)
    assert board.levels == [True]
    assert board.pm.read(GPE0_STS + byte, 1) == mask
    board.pm.write(GPE0_STS + byte, 1, mask)
    assert board.levels == [True, False]


def test_sci_stays_high_while_any_cause_is_left() -> None:
    board = Board()
    board.pm.write(GPE0_EN, 1, 0b0101)
    board.pm.write(PM1_EN, 2, POWER_BUTTON)
    board.pm.raise_gpe(0)
    board.pm.raise_gpe(2)
    board.pm.press_power_button()
    board.pm.write(GPE0_STS, 1, 0b0001)
    board.pm.write(PM1_STS, 2, POWER_BUTTON)
    assert board.levels == [True]
    board.pm.write(GPE0_EN, 1, 0)
    assert board.levels == [True, False]
    assert board.pm.read(GPE0_STS, 1) == 0b0100, "disabling is not clearing"


def test_writing_one_register_leaves_its_neighbours() -> None:
    board = Board()
    board.pm.write(GPE0_EN + 1, 1, 0xAA)
    board.pm.write(GPE0_EN, 1, 0x55)
    assert board.pm.read(GPE0_EN, 2) == 0xAA55
    assert board.pm.read(GPE0_STS, 4) == 0
    board.pm.press_power_button()
    board.pm.write(PM1_EN, 2, POWER_BUTTON)
    assert board.pm.read(PM1_STS, 4) == POWER_BUTTON << 16 | POWER_BUTTON
    board.pm.write(PM1_STS, 4, POWER_BUTTON)  # clears status, and enable by writing 0 there
    assert board.pm.read(PM1_STS, 4) == 0


@pytest.mark.parametrize(
    ("offset", "size", "value", "offs"),
    [
        (PM1_CNT, 2, 0x2000, 1),  # SLP_EN with SLP_TYP 0: S5
        (PM1_CNT, 2, 0x2001, 1),  # the same with SCI_EN, as Linux writes it
        (PM1_CNT, 4, 0x2000, 1),
        (PM1_CNT + 1, 1, 0x20, 1),
        (PM1_CNT, 2, 0x0000, 0),
        (PM1_CNT, 2, 0x0001, 0),
        (PM1_CNT, 2, 0x2400, 0),  # SLP_TYP 1: a sleep state there is not
        (PM1_CNT, 1, 0x20, 0),
        (PM1_EN, 2, 0x2000, 0),
    ],
)
def test_only_s5_turns_the_machine_off(offset: int, size: int, value: int, offs: int) -> None:
    board = Board()
    board.pm.write(offset, size, value)
    assert board.offs == offs


def test_control_register_shows_acpi_mode_and_the_sleep_type() -> None:
    board = Board()
    assert board.pm.read(PM1_CNT, 2) == 1
    board.pm.write(PM1_CNT, 2, 5 << 10)
    assert board.pm.read(PM1_CNT, 2) == 5 << 10 | 1


@pytest.mark.parametrize(
    ("seconds", "bits", "ticks"),
    [
        (0, 24, 0),
        (1, 24, 3_579_545),
        (5, 24, 5 * 3_579_545 - 2**24),  # wraps after 4.69 s
        (5, 32, 5 * 3_579_545),
        (1200, 32, 1200 * 3_579_545 - 2**32),
    ],
)
def test_timer_counts_at_the_acpi_frequency(seconds: int, bits: int, ticks: int) -> None:
    board = Board(bits)
    board.now += seconds * 1_000_000_000
    assert board.pm.read(PM_TMR, 4) == ticks
    assert board.pm.read(PM_TMR + 1, 1) == ticks >> 8 & 0xFF


def test_timer_is_read_only() -> None:
    board = Board()
    board.pm.write(PM_TMR, 4, 0xFFFF)
    assert board.pm.read(PM_TMR, 4) == 0


TIMER, WAKE = 0x0001, 0x8000
HALF = 2**23 / 3_579_545  # seconds until the highest of 24 bits changes


@pytest.mark.parametrize(
    ("seconds", "carried"), [(0, 0), (HALF - 0.01, 0), (HALF + 0.01, TIMER), (5 * HALF, TIMER)]
)
def test_timer_status_tells_that_the_highest_bit_changed(seconds: float, carried: int) -> None:
    board = Board()
    board.now += int(seconds * 1e9)
    assert board.pm.read(PM1_STS, 2) == carried
    board.pm.write(PM1_STS, 2, TIMER)
    assert board.pm.read(PM1_STS, 2) == 0
    board.now += int((HALF + 0.001) * 1e9)
    assert board.pm.read(PM1_STS, 2) == TIMER, "up and down both count"


def test_timer_interrupts_a_guest_that_wants_it() -> None:
    told = threading.Event()
    pm = AcpiPm(
        lambda level: told.set() if level else None,
        lambda: None,
        timer_bits=17,  # a carry each 18 ms
    )
    assert not told.wait(0.05), "nobody asked"
    pm.write(PM1_EN, 2, TIMER)
    for _ in range(3):
        pm.write(PM1_STS, 2, TIMER)
        told.clear()
        assert told.wait(5)
        assert pm.read(PM1_STS, 2) == TIMER
    pm.close()
    told.clear()
    assert not told.wait(0.05)


def test_a_sleep_state_there_is_not_wakes_at_once() -> None:
    board = Board()
    board.pm.write(PM1_EN, 2, 0xFFFF)
    board.pm.write(PM1_CNT, 2, 1 << 10 | 0x2000)
    assert board.pm.read(PM1_STS, 2) == WAKE
    assert board.levels == [], "waking is no event"
    board.pm.write(PM1_STS, 2, WAKE)
    assert board.pm.read(PM1_STS, 2) == 0


def test_state_goes_on_in_another_machine() -> None:
    board, other = Board(), Board()
    board.pm.write(PM1_EN, 2, POWER_BUTTON)
    board.pm.press_power_button()
    board.pm.write(GPE0_EN, 1, 4)
    board.pm.raise_gpe(3)
    board.pm.write(PM1_CNT, 2, 3 << 10)
    board.now += 1_500_000_000
    state = AcpiPm.vmstate.save(board.pm)
    other.now += 77_000_000_000
    AcpiPm.vmstate.load(other.pm, state)
    registers = (PM1_STS, PM1_EN, PM1_CNT, PM_TMR, GPE0_STS, GPE0_EN)
    assert [other.pm.read(r, 2) for r in registers] == [board.pm.read(r, 2) for r in registers]
    assert other.levels[-1:] == [True], "the interrupt that was pending still is"
    other.now += 1_000_000_000
    assert other.pm.read(PM1_STS, 2) == POWER_BUTTON | TIMER, "2.5 s since the start"


def test_reset_lowers_sci_and_forgets() -> None:
    board = Board()
    board.pm.write(PM1_EN, 2, POWER_BUTTON)
    board.pm.write(GPE0_EN, 1, 4)
    board.pm.press_power_button()
    board.pm.raise_gpe(2)
    board.pm.reset()
    assert board.levels == [True, False]
    assert [board.pm.read(r, 2) for r in (PM1_STS, PM1_EN, GPE0_STS, GPE0_EN)] == [0] * 4
