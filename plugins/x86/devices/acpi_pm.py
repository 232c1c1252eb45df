"""ACPI power management: power button, soft off, the PM timer, general-purpose events.

Register blocks where SeaBIOS puts them on QEMU's q35. Source: ACPI 6.5 §4.8.3 and §4.8.4.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from typing import ClassVar

from cpufw.core.vmstate import VMState, u16, u64

PM_BASE = 0x600
PM1_EVENT = 0x00  # status and enable, 16 bits each
PM1_CONTROL = 0x04
PM_TIMER = 0x08
GPE0 = 0x20  # status and enable, 64 bits each
PM_BYTES = 0x30

PM_TIMER_HZ = 3_579_545
_GPE_BITS = 64
_NS = 1_000_000_000


class Pm1(enum.IntFlag):
    """Bits of the PM1 status and enable registers that this device has."""

    TIMER = 1 << 0
    POWER_BUTTON = 1 << 8
    WAKE = 1 << 15  # status only


_PM1_EVENTS = Pm1.TIMER | Pm1.POWER_BUTTON  # what can raise the SCI


class Pm1Control(enum.IntFlag):
    """Bits of the PM1 control register."""

    SCI_ENABLE = 1 << 0
    SLEEP_TYPE = 0b111 << 10
    SLEEP_ENABLE = 1 << 13


SLEEP_TYPE_S5 = 0  # what \_S5 says; the only sleep state there is
_SLEEP_TYPE_SHIFT = 10


class AcpiPm:
    """The fixed ACPI hardware, at ports 0x600-0x62f, always in ACPI mode (no SMI command).

    `set_sci(level)` is called whenever the SCI line changes, with the device's lock held so
    that levels arrive in order: it must not call back. `on_power_off()` is called when the
    guest enters S5. The line is high while an enabled PM1 or GPE0 status bit is set.

    The PM timer has `timer_bits` (24 or 32) bits of `clock`, a function like
    time.monotonic_ns. Its status bit is set when its highest bit changes; while the guest has
    that enabled, a thread waits for it, which `close` ends. Other sleep types than S5 wake at
    once.
    """

    vmstate: ClassVar[VMState] = VMState(
        "acpi-pm",
        1,
        u16("pm1-status", attr="_pm1.status"),
        u16("pm1-enable", attr="_pm1.enable"),
        u64("gpe0-status", attr="_gpe0.status"),
        u64("gpe0-enable", attr="_gpe0.enable"),
        u16("sleep-type", attr="_sleep_type"),
        u64("timer-ns", attr="_timer_ns"),
        pre_save="_note_time",
        post_load="_resume_timer",
    )

    def __init__(
        self,
        set_sci: Callable[[bool], None],
        on_power_off: Callable[[], None],
        *,
        timer_bits: int = 24,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.ports = range(PM_BASE, PM_BASE + PM_BYTES)
        self._set_sci = set_sci
        self._on_power_off = on_power_off
        self._timer_bits = timer_bits
        self._clock = clock
        self._start = clock()
        self._timer_ns = 0  # of a saved state
        self._half = 0  # how often the timer's highest bit has changed, when last looked at
        self._alarm: threading.Timer | None = None
        self._pm1 = _EventBlock(16, _PM1_EVENTS)
        self._gpe0 = _EventBlock(_GPE_BITS)
        self._sleep_type = 0
        self._sci = False
        self._lock = threading.Lock()

    # --- The machine's side -------------------------------------------------------------

    def press_power_button(self) -> None:
        """Tell the guest, if it listens, that its user wants it off."""
        with self._lock:
            self._pm1.status |= Pm1.POWER_BUTTON
            self._update_sci()

    def raise_gpe(self, bit: int) -> None:
        """Set general-purpose event `bit` (0..63)."""
        with self._lock:
            self._gpe0.status |= 1 << bit
            self._update_sci()

    def reset(self) -> None:
        """Back to power-on: nothing enabled, nothing pending, SCI low. The timer runs on."""
        with self._lock:
            self._note_carry()
            for block in (self._pm1, self._gpe0):
                block.status = block.enable = 0
            self._sleep_type = 0
            self._update_sci()

    def close(self) -> None:
        """Call nobody any more."""
        with self._lock:
            self._set_sci = lambda _level: None
            self._pm1.enable = 0
            self._arm()

    def _note_time(self) -> None:
        with self._lock:
            self._note_carry()
            self._timer_ns = self._clock() - self._start

    def _resume_timer(self) -> None:
        with self._lock:
            self._start = self._clock() - self._timer_ns
            self._half = self._ticks() >> self._timer_bits - 1
            self._sci = not self._pending()  # so that the line is told in any case
            self._update_sci()

    def _pending(self) -> bool:
        return self._pm1.pending or self._gpe0.pending

    def _update_sci(self) -> None:
        level = self._pending()
        if level != self._sci:
            self._sci = level
            self._set_sci(level)
        self._arm()

    # --- The PM timer -------------------------------------------------------------------

    def _ticks(self) -> int:
        return (self._clock() - self._start) * PM_TIMER_HZ // _NS

    def _note_carry(self) -> None:
        """Set the timer's status if its highest bit has changed."""
        half = self._ticks() >> self._timer_bits - 1
        if half != self._half:
            self._half = half
            self._pm1.status |= Pm1.TIMER

    def _arm(self) -> None:
        """Have a thread wait for the next carry as long as that would raise the SCI."""
        wanted = self._pm1.enable & Pm1.TIMER and not self._pm1.status & Pm1.TIMER
        if wanted and self._alarm is None:
            left = (self._half + 1 << self._timer_bits - 1) - self._ticks()
            self._alarm = threading.Timer(max(left, 0) / PM_TIMER_HZ, self._carry)
            self._alarm.daemon = True
            self._alarm.start()
        elif not wanted and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _carry(self) -> None:
        with self._lock:
            if self._alarm is not threading.current_thread():
                return  # it was disarmed while this thread waited for the lock
            self._alarm = None
            self._note_carry()
            self._update_sci()

    # --- The guest's side ---------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """Answer the guest; see PortDevice. Offsets with no register read 0."""
        if offset >= GPE0:
            value, start = self._gpe0.value, GPE0
        elif offset >= PM_TIMER:
            value, start = self._ticks() & (1 << self._timer_bits) - 1, PM_TIMER
        elif offset >= PM1_CONTROL:
            value, start = self._sleep_type | Pm1Control.SCI_ENABLE, PM1_CONTROL
        else:
            with self._lock:
                self._note_carry()
                self._update_sci()
                value, start = self._pm1.value, PM1_EVENT
        return value >> 8 * (offset - start) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Do what the guest asks; see PortDevice."""
        power_off = False
        with self._lock:
            if offset >= GPE0:
                self._gpe0.write(offset - GPE0, size, value)
            elif PM1_CONTROL <= offset < PM_TIMER:
                power_off = self._write_control(offset - PM1_CONTROL, value)
            elif offset < PM1_CONTROL:
                self._note_carry()
                self._pm1.write(offset - PM1_EVENT, size, value)
            self._update_sci()
        if power_off:
            self._on_power_off()

    def _write_control(self, offset: int, value: int) -> bool:
        """Whether this write turns the machine off."""
        value <<= 8 * offset
        if offset > 1:
            return False
        if offset == 1 or value > 0xFF:
            self._sleep_type = value & Pm1Control.SLEEP_TYPE
        if not value & Pm1Control.SLEEP_ENABLE:
            return False
        if self._sleep_type == SLEEP_TYPE_S5 << _SLEEP_TYPE_SHIFT:
            return True
        self._pm1.status |= Pm1.WAKE
        return False


class _EventBlock:
    """A status register of `bits` bits, cleared by writing ones, and its enable register."""

    def __init__(self, bits: int, events: int = -1) -> None:
        self.bits = bits
        self.events = events
        self.status = 0
        self.enable = 0

    @property
    def pending(self) -> bool:
        return self.status & self.enable & self.events != 0

    @property
    def value(self) -> int:
        """Both registers as the guest sees them: status low, enable high."""
        return self.status | self.enable << self.bits

    def write(self, offset: int, size: int, value: int) -> None:
        touched = ((1 << 8 * size) - 1) << 8 * offset
        written = value << 8 * offset & touched
        self.status &= ~written
        enable = self.enable & ~(touched >> self.bits) | written >> self.bits
        self.enable = enable & (1 << self.bits) - 1
