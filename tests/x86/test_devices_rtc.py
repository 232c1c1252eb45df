"""The real-time clock and CMOS RAM, read and set as guests do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw_x86.devices import PortBus, Rtc, cmos_contents

SECOND = 1_000_000_000  # of the clock
START = datetime(2024, 2, 28, 23, 59, 58, tzinfo=UTC)  # two seconds before a leap day
TIME = (0x32, 9, 8, 7, 4, 2, 0)  # century, year, month, day, hour, minute, second
SET_BIT, BINARY, HOURS_24 = 0x80, 0x04, 0x02
PERIODIC, ALARM, UPDATE = 0x40, 0x20, 0x10


class Bench:
    """An RTC on a bus, its clock in the test's hand."""

    def __init__(self, at: datetime = START) -> None:
        self.now = int(at.timestamp()) * SECOND
        self.levels: list[bool] = []
        self.bus = PortBus()
        self.rtc = Rtc(self.levels.append, cmos_contents(64 << 20, 0, 2), clock=lambda: self.now)
        self.bus.add(self.rtc)

    def read(self, register: int) -> int:
        self.bus.write(0x70, 1, register)
        return self.bus.read(0x71, 1)

    def write(self, register: int, value: int) -> None:
        self.bus.write(0x70, 1, register)
        self.bus.write(0x71, 1, value)

    def time(self) -> list[int]:
        return [self.read(register) for register in TIME]

    def set_time(self, values: list[int]) -> None:
        """As operating systems do: hold, write, let go."""
        control = self.read(0xB)
        self.write(0xB, control | SET_BIT)
        for register, value in zip(TIME, values, strict=True):
            self.write(register, value)
        self.write(0xB, control)

    def pass_seconds(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.rtc.close()


def test_time_is_the_clocks_in_bcd_and_24_hours(bench: Bench) -> None:
    assert bench.time() == [0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x58]
    assert bench.read(6) == 4, "28 February 2024 was a Wednesday; Sunday is 1"
    bench.pass_seconds(2)
    assert bench.time() == [0x20, 0x24, 0x02, 0x29, 0x00, 0x00, 0x00]


@pytest.mark.parametrize(
    ("hour", "control", "expected"),
    [
        (0, 0, 0x12),
        (1, 0, 0x01),
        (11, 0, 0x11),
        (12, 0, 0x92),
        (13, 0, 0x81),
        (23, 0, 0x91),
        (0, BINARY, 12),
        (23, BINARY, 0x80 | 11),
        (23, BINARY | HOURS_24, 23),
    ],
)
def test_hours_as_the_guest_wants_them(hour: int, control: int, expected: int) -> None:
    bench = Bench(START.replace(hour=hour))
    bench.write(0xB, control)
    assert bench.read(4) == expected


@pytest.mark.parametrize("control", [0, BINARY, HOURS_24, BINARY | HOURS_24])
@given(seconds=st.integers(0, 200 * 365 * 86400))
def test_time_set_reads_back_and_goes_on(control: int, seconds: int) -> None:
    bench = Bench()
    target = Bench(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))
    for each in (bench, target):
        each.write(0xB, control)
    bench.set_time(target.time())
    assert bench.time() == target.time()
    for each in (bench, target):
        each.pass_seconds(86_399)
    assert bench.time() == target.time()


def test_setting_the_time_does_not_change_the_hosts() -> None:
    before = time.time()
    rtc = Rtc(list[bool]().append)
    rtc.write(0, 1, 9)
    rtc.write(1, 1, 0x50)
    assert rtc.read(1, 1) == 0x50
    assert abs(time.time() - before) < 5


def test_time_stands_still_while_it_is_set(bench: Bench) -> None:
    bench.write(0xB, SET_BIT | HOURS_24)
    before = bench.time()
    bench.pass_seconds(100)
    assert bench.time() == before
    assert bench.read(0xC) & UPDATE == 0


def test_first_update_comes_half_a_second_after_the_divider_starts(bench: Bench) -> None:
    bench.write(0xA, 0x70)
    bench.write(0, 0x10)
    bench.pass_seconds(3)
    bench.write(0xA, 0x26)
    assert bench.read(0) == 0x10
    bench.pass_seconds(0.49)
    assert bench.read(0) == 0x10
    bench.pass_seconds(0.02)
    assert bench.read(0) == 0x11


def test_update_in_progress_only_just_before_the_update(bench: Bench) -> None:
    assert bench.read(0xA) & 0x80 == 0
    bench.pass_seconds(1 - 0.0001)
    assert bench.read(0xA) & 0x80
    bench.pass_seconds(0.0001)
    assert bench.read(0xA) & 0x80 == 0


@pytest.mark.parametrize(
    ("alarm", "seconds"),  # second, minute, hour; when it comes after 23:59:58
    [
        ((0x59, 0x59, 0x23), 1),
        ((0x00, 0x00, 0x00), 2),
        ((0x05, 0xFF, 0xFF), 7),
        ((0xFF, 0x01, 0xC0), 62),
        ((0x57, 0x59, 0x23), 86_399),
    ],
)
def test_alarm(bench: Bench, alarm: tuple[int, int, int], seconds: int) -> None:
    for register, value in zip((1, 3, 5), alarm, strict=True):
        bench.write(register, value)
    bench.pass_seconds(seconds - 0.5)
    assert bench.read(0xC) & ALARM == 0
    bench.pass_seconds(1)
    assert bench.read(0xC) & ALARM


def test_alarm_that_is_no_time_never_comes(bench: Bench) -> None:
    bench.write(1, 0x61)
    bench.pass_seconds(3 * 86_400)
    assert bench.read(0xC) & ALARM == 0


def test_interrupt_is_raised_until_it_is_read(bench: Bench) -> None:
    bench.write(0xB, HOURS_24 | UPDATE)
    bench.pass_seconds(1)
    deadline = monotonic() + 5
    while not bench.levels and monotonic() < deadline:  # the timer's thread raises it
        time.sleep(0.01)
    assert bench.levels == [True]
    assert bench.read(0xC) & (0x80 | UPDATE) == 0x80 | UPDATE
    assert bench.levels == [True, False]
    assert bench.read(0xC) & UPDATE == 0


def test_periodic_interrupts_come_at_their_rate_and_end() -> None:
    raised = threading.Semaphore(0)
    rtc = Rtc(lambda level: raised.release() if level else None)
    rtc.write(0, 1, 0xA)
    rtc.write(1, 1, 0x28)  # 2**7 ticks of 32768 Hz: 256 Hz
    rtc.write(0, 1, 0xB)
    rtc.write(1, 1, HOURS_24 | PERIODIC)
    rtc.write(0, 1, 0xC)
    rtc.read(1, 1)
    start = monotonic()
    for _ in range(25):
        assert raised.acquire(timeout=5)
        rtc.read(1, 1)
    assert monotonic() - start > 23 / 256, "interrupts came early"
    rtc.write(0, 1, 0xB)
    rtc.write(1, 1, HOURS_24)
    deadline = monotonic() + 5
    while any(thread.name == "rtc" for thread in threading.enumerate()):
        assert monotonic() < deadline, "the timer's thread outlives the interrupts"
        time.sleep(0.01)


def test_reset_takes_interrupts_and_leaves_time_and_memory(bench: Bench) -> None:
    bench.write(0x0F, 0x0A)
    bench.set_time([0x20, 0x30, 1, 1, 0, 0, 0])
    bench.write(0xB, HOURS_24 | ALARM)
    bench.rtc.reset()
    assert bench.read(0xB) == HOURS_24
    assert bench.read(0x0F) == 0x0A
    assert bench.time()[:2] == [0x20, 0x30]


def test_word_written_to_the_index_sets_the_data_too(bench: Bench) -> None:
    bench.bus.write(0x70, 2, 0x5A0F)
    assert bench.bus.read(0x71, 1) == 0x5A
    assert bench.bus.read(0x70, 2) == 0x5AFF


def test_index_leaves_out_the_bit_that_masks_nmi(bench: Bench) -> None:
    assert bench.read(0x80 | 0x0D) == 0x80, "register D: the battery is good"


def test_firmware_finds_memory_and_cpus() -> None:
    bench = Bench()
    assert bench.read(0x15) | bench.read(0x16) << 8 == 640
    assert bench.read(0x30) | bench.read(0x31) << 8 == 63 * 1024  # KiB above 1 MiB
    assert (bench.read(0x34) | bench.read(0x35) << 8) << 16 == 48 << 20  # above 16 MiB
    assert bench.read(0x5F) == 1
    large = cmos_contents(3 << 30, 5 << 30, 300)
    assert (large[0x34] | large[0x35] << 8) << 16 == (3 << 30) - (16 << 20)
    assert (large[0x5B] | large[0x5C] << 8 | large[0x5D] << 16) << 16 == 5 << 30
    assert large[0x17] == large[0x18] == 0xFF, "64 MiB and more do not fit"
    assert large[0x5F] == 0xFF
    assert sum(large.get(at, 0) for at in range(0x10, 0x2E)) == large[0x2E] << 8 | large[0x2F]


@given(st.lists(st.tuples(st.sampled_from([*TIME, 1, 3, 5, 0xA, 0xB]), st.integers(0, 255))))
def test_any_time_written_is_taken_and_saved(writes: list[tuple[int, int]]) -> None:
    bench = Bench()
    for register, value in writes:
        bench.write(register, value & ~0x70 if register == 0xB else value)
        bench.pass_seconds(0.4)
        assert all(0 <= value <= 0xFF for value in [*bench.time(), bench.read(0xC)])
    other = Bench()
    other.now = bench.now
    Rtc.vmstate.load(other.rtc, Rtc.vmstate.save(bench.rtc))
    assert other.time() == bench.time()


def test_an_alarm_between_save_and_load_is_seen_after_it(bench: Bench) -> None:
    for register, value in ((1, 0x05), (3, 0), (5, 0)):
        bench.write(register, value)
    state = Rtc.vmstate.save(bench.rtc)
    other = Bench(START + timedelta(hours=1))
    Rtc.vmstate.load(other.rtc, state)
    assert other.read(0xC) & ALARM
