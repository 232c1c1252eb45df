"""ACPI power management: power button, soft off, the PM timer, general-purpose events.

Register blocks where SeaBIOS puts them on QEMU's q35. Source: ACPI 6.5 §4.8.3 and §4.8.4.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable

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

    POWER_BUTTON = 1 << 8


class Pm1Control(enum.IntFlag):
    """Bits of the PM1 control register."""

    SCI_ENABLE = 1 << 0
    SLEEP_TYPE = 0b111 << 10
    SLEEP_ENABLE = 1 << 13


_SLEEP_TYPE_S5 = 0  # what \_S5 must say; the only sleep state there is


class AcpiPm:
    """The fixed ACPI hardware, at ports 0x600-0x62f, always in ACPI mode (no SMI command).

    `set_sci(level)` is called whenever the SCI line changes, with the device's lock held so
    that levels arrive in order: it must not call back. `on_power_off()` is called when the
    guest enters S5. The line is high while an enabled PM1 or GPE0 status bit is set.

    The PM timer has `timer_bits` (24 or 32) bits of `clock`, a function like
    time.monotonic_ns. Its overflow sets no status bit: nobody waits for it.
    """

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
        self._timer_mask = (1 << timer_bits) - 1
        self._clock = clock
        self._start = clock()
        self._pm1 = _EventBlock(16)
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
            self._pm1 = _EventBlock(16)
            self._gpe0 = _EventBlock(_GPE_BITS)
            self._sleep_type = 0
            self._update_sci()

    def _update_sci(self) -> None:
        level = self._pm1.pending or self._gpe0.pending
        if level != self._sci:
            self._sci = level
            self._set_sci(level)

    # --- The guest's side ---------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """Answer the guest; see PortDevice. Offsets with no register read 0."""
        if offset >= GPE0:
            value, start = self._gpe0.value, GPE0
        elif offset >= PM_TIMER:
            ticks = (self._clock() - self._start) * PM_TIMER_HZ // _NS
            value, start = ticks & self._timer_mask, PM_TIMER
        elif offset >= PM1_CONTROL:
            value, start = self._sleep_type | Pm1Control.SCI_ENABLE, PM1_CONTROL
        else:
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
        return bool(value & Pm1Control.SLEEP_ENABLE) and self._sleep_type == _SLEEP_TYPE_S5


class _EventBlock:
    """A status register of `bits` bits, cleared by writing ones, and its enable register."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.status = 0
        self.enable = 0

    @property
    def pending(self) -> bool:
        return self.status & self.enable != 0

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
