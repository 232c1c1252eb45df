"""The real-time clock and CMOS RAM: an MC146818 at ports 0x70 and 0x71, interrupt line 8.

Source: Motorola MC146818A data sheet; the century register is the PC's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import ClassVar

from cpufw.core.vmstate import VMState, blob, i64, u8

from .cmos import CPU_COUNT
from .port_device import ByteRegisters
from .rtc_calendar import DAY_SECONDS, SECOND, Moment, microseconds, moment

RTC_PORT = 0x70
RTC_IRQ = 8
CENTURY = 0x32
CMOS_BYTES = 128

_INDEX, _DATA = 0, 1  # offsets
_NMI_OFF = 0x80  # port 0x70's highest bit is no part of the index

_SECOND, _MINUTE, _HOUR, _WEEKDAY, _DAY, _MONTH, _YEAR = 0, 2, 4, 6, 7, 8, 9
_TIME = (_SECOND, _MINUTE, _HOUR, _WEEKDAY, _DAY, _MONTH, _YEAR, CENTURY)
_SECOND_ALARM, _MINUTE_ALARM, _HOUR_ALARM = 1, 3, 5
_A, _B, _C, _D = 0x0A, 0x0B, 0x0C, 0x0D

_UPDATING = 0x80  # register A
_DIVIDER, _DIVIDER_RESET = 0x70, 0x60  # 11x holds the divider chain
_RATE = 0x0F
_DIVIDER_32768_HZ, _RATE_1024_HZ = 0x20, 0x06

_SET = 0x80  # register B
_PERIODIC, _ALARM, _UPDATE = 0x40, 0x20, 0x10  # enabled in B, happened in C
_SQUARE_WAVE = 0x08
_BINARY = 0x04
_24_HOURS = 0x02
_EVENTS = _PERIODIC | _ALARM | _UPDATE

_REQUEST = 0x80  # register C
_POWER_GOOD = 0x80  # register D

_PM = 0x80
_ANY = 0xC0  # an alarm register with both bits set matches every value

_CRYSTAL_HZ = 32_768
_UPDATE_NOTICE = 244  # UIP is set so many microseconds before the registers change
_AFTER_DIVIDER_RESET = SECOND // 2  # the first update comes half a second after its end
_LONGEST_WAIT = 10 * SECOND  # the host's clock may be set while the timer waits


class Rtc(ByteRegisters):
    """Time from `clock` (nanoseconds since 1970, UTC) plus `offset` microseconds.

    A guest that sets the time changes the offset. `contents` are the CMOS RAM's bytes at the
    start. `set_irq(level)` is called with the lock held and must not call back. A thread runs
    while the guest has an interrupt enabled, and sleeps until the next one is due; `close` ends it.

    The weekday follows from the date; a write to it is lost, as are interrupts that come while one
    of the same kind waits to be read from register C.
    """

    vmstate: ClassVar[VMState] = VMState(
        "rtc",
        1,
        u8("index"),
        blob("ram", CMOS_BYTES),
        i64("offset"),
        i64("seen", attr="_seen"),
        post_load="_loaded",
    )

    def __init__(
        self,
        set_irq: Callable[[bool], None],
        contents: Mapping[int, int] | None = None,
        *,
        offset: int = 0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.ports = range(RTC_PORT, RTC_PORT + 2)
        self.offset = offset
        self.index = 0
        self.ram = bytearray(CMOS_BYTES)
        for register, value in (contents or {}).items():
            self.ram[register] = value
        self.ram[_A] = _DIVIDER_32768_HZ | _RATE_1024_HZ
        self.ram[_B] = _24_HOURS
        self.ram[_D] = _POWER_GOOD
        self._set_irq = set_irq
        self._level = False
        self._clock = clock
        self._seen = self._now()  # events up to here are in register C
        self._changed = threading.Condition()
        self._timer: threading.Thread | None = None
        self._closed = False

    # --- The machine's side -------------------------------------------------------------

    def reset(self) -> None:
        """Interrupts off; the time and the RAM go on, as behind a battery."""
        with self._changed:
            self.index = 0
            self.ram[_B] &= ~(_EVENTS | _SQUARE_WAVE)
            self.ram[_C] = 0
            self._update_irq()

    def set_cpu_count(self, count: int) -> None:
        """How many CPUs firmware has to wait for at its next start."""
        self.ram[CPU_COUNT] = min(count - 1, 0xFF)

    def close(self) -> None:
        """End the timer's thread: the interrupt line does not change by itself any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            timer = self._timer
        if timer is not None:
            timer.join()

    def _loaded(self) -> None:
        with self._changed:
            self._update_irq()

    # --- The guest's side ---------------------------------------------------------------

    def read_byte(self, offset: int) -> int:
        """The register that the index names; the index itself cannot be read."""
        if offset != _DATA:
            return 0xFF
        register = self.index
        with self._changed:
            if register == _C:
                return self._take_events()
            if self._is_held:
                return self.ram[register]
            if register == _A:
                left = SECOND - self._now() % SECOND
                return self.ram[_A] | (_UPDATING if left <= _UPDATE_NOTICE else 0)
            if register in _TIME:
                return self._time_registers()[register]
            return self.ram[register]

    def write_byte(self, offset: int, value: int) -> None:
        """The index at 0x70, at 0x71 the register that it names."""
        if offset == _INDEX:
            self.index = value & ~_NMI_OFF
        elif offset == _DATA:
            with self._changed:
                self._write_register(self.index, value)

    def _write_register(self, register: int, value: int) -> None:
        if register in (_C, _D):
            return
        self._catch_up()
        if register == _A:
            self._control(_A, value & ~_UPDATING)
        elif register == _B:
            self._control(_B, value & ~_UPDATE if value & _SET else value)
        elif register in _TIME and not self._is_held:
            self.ram[:] = self._with_time()
            self.ram[register] = value
            self._start_at(self._time_set(), self._now() % SECOND)
        else:
            self.ram[register] = value
        self._update_irq()

    def _control(self, register: int, value: int) -> None:
        """Set register A or B, which hold the time or let it run on from what was written."""
        was_held, was_reset = self._is_held, self._is_divider_reset
        now = self._with_time()
        self.ram[register] = value
        if self._is_held and not was_held:
            self.ram[:] = now
            self.ram[register] = value
        elif was_held and not self._is_held:
            part = _AFTER_DIVIDER_RESET if was_reset else self._now() % SECOND
            self._start_at(self._time_set(), part)

    def _take_events(self) -> int:
        self._catch_up()
        self._update_irq()
        events = self.ram[_C]
        self.ram[_C] = 0
        self._update_irq()
        return events

    # --- Time ---------------------------------------------------------------------------

    def _now(self) -> int:
        return self._clock() // 1000 + self.offset

    def _start_at(self, time_set: int, part: int) -> None:
        self.offset = time_set + part - self._clock() // 1000
        self._seen = self._now()

    @property
    def _is_divider_reset(self) -> bool:
        return self.ram[_A] & _DIVIDER_RESET == _DIVIDER_RESET

    @property
    def _is_held(self) -> bool:
        """Whether the time stands still, in `ram`, so that it can be set."""
        return bool(self.ram[_B] & _SET) or self._is_divider_reset

    def _with_time(self) -> bytearray:
        """The RAM with the time in it."""
        ram = bytearray(self.ram)
        if not self._is_held:
            for register, value in self._time_registers().items():
                ram[register] = value
        return ram

    def _time_registers(self) -> dict[int, int]:
        now: Moment = moment(self._now())
        hour = now.hour if self.ram[_B] & _24_HOURS else (now.hour - 1) % 12 + 1
        registers = {
            _SECOND: now.second,
            _MINUTE: now.minute,
            _HOUR: hour,
            _WEEKDAY: now.weekday,
            _DAY: now.day,
            _MONTH: now.month,
            _YEAR: now.year % 100,
            CENTURY: now.year // 100 % 100,
        }
        if not self.ram[_B] & _BINARY:
            registers = {at: value // 10 << 4 | value % 10 for at, value in registers.items()}
        if now.hour >= 12 and not self.ram[_B] & _24_HOURS:
            registers[_HOUR] |= _PM
        return registers

    def _time_set(self) -> int:
        """The microseconds of the time in `ram`."""
        number = self._number
        return microseconds(
            number(self.ram[CENTURY]) * 100 + number(self.ram[_YEAR]),
            number(self.ram[_MONTH]),
            number(self.ram[_DAY]),
            self._hour(self.ram[_HOUR]),
            number(self.ram[_MINUTE]),
            number(self.ram[_SECOND]),
        )

    def _number(self, value: int) -> int:
        return value if self.ram[_B] & _BINARY else (value >> 4) * 10 + (value & 0xF)

    def _hour(self, value: int) -> int:
        if self.ram[_B] & _24_HOURS:
            return self._number(value)
        return self._number(value & ~_PM) % 12 + (12 if value & _PM else 0)

    # --- Events -------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Note in register C what happened since the last time."""
        seen, now = self._seen, self._now()
        self._seen = now
        if now <= seen:  # the host's clock was set back
            return
        rate = self._rate
        if rate and _ticks(now) >> rate != _ticks(seen) >> rate:
            self.ram[_C] |= _PERIODIC
        if self._is_held:
            return
        if now // SECOND != seen // SECOND:
            self.ram[_C] |= _UPDATE
            alarm = self._next_alarm(seen)
            if alarm is not None and alarm <= now:
                self.ram[_C] |= _ALARM

    @property
    def _rate(self) -> int:
        """How many of the crystal's ticks, as a power of two, make a period; 0 is none."""
        rate = self.ram[_A] & _RATE
        if not rate or self._is_divider_reset:
            return 0
        return rate + 6 if rate <= 2 else rate - 1

    def _next_alarm(self, after: int) -> int | None:
        """When the alarm registers next match, in microseconds; None if they never do."""
        hours = self._alarm(_HOUR_ALARM, 24, self._hour)
        minutes = self._alarm(_MINUTE_ALARM, 60, self._number)
        seconds = self._alarm(_SECOND_ALARM, 60, self._number)
        if not (hours and minutes and seconds):
            return None
        start = after // SECOND + 1
        at = start
        while at <= start + DAY_SECONDS:
            hour, rest = divmod(at % DAY_SECONDS, 3600)
            minute, second = divmod(rest, 60)
            if hour not in hours:
                at += 3600 - rest
            elif minute not in minutes:
                at += 60 - second
            elif second not in seconds:
                at += 1
            else:
                return at * SECOND
        return None

    def _alarm(self, register: int, limit: int, decode: Callable[[int], int]) -> range:
        """The values that the alarm register lets pass; empty if it names none below `limit`."""
        value = self.ram[register]
        if value >= _ANY:
            return range(limit)
        wanted = decode(value)
        return range(wanted, wanted + 1) if wanted < limit else range(0)

    def _update_irq(self) -> None:
        """Let register C, the line and the timer follow the events and what is enabled."""
        enabled = self.ram[_B] & _EVENTS
        level = bool(enabled & self.ram[_C])
        self.ram[_C] = self.ram[_C] & _EVENTS | (_REQUEST if level else 0)
        if level != self._level:
            self._level = level
            self._set_irq(level)
        if self._timer is not None:
            self._changed.notify_all()
        elif enabled and not self._closed:
            self._timer = threading.Thread(target=self._run_timer, name="rtc", daemon=True)
            self._timer.start()

    def _run_timer(self) -> None:
        with self._changed:
            while self.ram[_B] & _EVENTS and not self._closed:
                due = self._next_event()
                if due is None:
                    self._changed.wait()
                    continue
                wait = due - self._now()
                if wait > 0:
                    self._changed.wait(min(wait, _LONGEST_WAIT) / SECOND)
                    continue
                self._catch_up()
                self._update_irq()
            self._timer = None

    def _next_event(self) -> int | None:
        """When the next event is due that is enabled and not waiting to be read already."""
        wanted = self.ram[_B] & _EVENTS & ~self.ram[_C]
        due: list[int] = []
        rate = self._rate
        if wanted & _PERIODIC and rate:
            tick = (_ticks(self._seen) >> rate) + 1 << rate
            due.append(-(-tick * SECOND // _CRYSTAL_HZ))
        if not self._is_held:
            if wanted & _UPDATE:
                due.append((self._seen // SECOND + 1) * SECOND)
            if wanted & _ALARM:
                alarm = self._next_alarm(self._seen)
                due += [] if alarm is None else [alarm]
        return min(due, default=None)


def _ticks(now: int) -> int:
    return now * _CRYSTAL_HZ // SECOND
