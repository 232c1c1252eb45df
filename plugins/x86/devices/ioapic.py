"""The I/O APIC in user space, for a VM with only its local APICs in the kernel.

Source: Intel 82093AA datasheet, 3 "Register description"; the EOI register and version 0x20 are
those of later chipsets (Intel ICH9 datasheet 13.5).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import ClassVar

from cpufw.core.vmstate import VMState, array, u8, u32, u64

IOAPIC_ADDRESS = 0xFEC0_0000
PINS = 24

_SIZE = 0x1000
_SELECT, _WINDOW, _EOI = 0x00, 0x10, 0x40
_ID, _VERSION_REGISTER, _ARBITRATION, _FIRST_ENTRY = 0x00, 0x01, 0x02, 0x10
_VERSION = 0x20

# A redirection entry: 82093AA, 3.2.4.
_VECTOR = 0xFF
_DELIVERY_MODE = 0x7 << 8
_EXT_INT = 0x7 << 8
_LOGICAL = 1 << 11
_REMOTE_IRR = 1 << 14
_LEVEL = 1 << 15
_MASKED = 1 << 16
_READ_ONLY = 1 << 12 | _REMOTE_IRR
_DESTINATION = 56
# Documentation/virt/kvm/x86/cpuid.rst, KVM_FEATURE_MSI_EXT_DEST_ID: seven more bits of the id.
_EXTENDED_DESTINATION, _EXTENDED_MASK = 49, 0x7F

# An MSI: Intel SDM vol. 3A, 11.11.
_MSI_ADDRESS = 0xFEE0_0000
_MSI_LOGICAL = 1 << 2
_MSI_ASSERT, _MSI_LEVEL = 1 << 14, 1 << 15

Message = tuple[int, int]
"""Address and data of an MSI, the upper part of a destination in the address's upper half."""


class Ioapic:
    """24 pins that become MSIs.

    `send(address, data)` delivers one now. `route({pin: (address, data)})` tells KVM of all that
    are in use: it has the EOI of level-triggered ones come back, through `eoi`.
    """

    addresses = range(IOAPIC_ADDRESS, IOAPIC_ADDRESS + _SIZE)
    vmstate: ClassVar[VMState] = VMState(
        "ioapic",
        1,
        u32("id"),
        u8("select"),
        u32("lines"),
        array(u64, "entries", PINS),
        post_load="_update_routes",
    )

    def __init__(
        self,
        send: Callable[[int, int], object],
        route: Callable[[Mapping[int, Message]], None],
    ) -> None:
        self._send, self._route = send, route
        self._lock = threading.Lock()
        self._routes: dict[int, Message] = {}
        self.lines = 0  # as the devices hold them, which a reset of this one does not change
        self.reset()

    def reset(self) -> None:
        """All pins masked."""
        self.id = self.select = 0
        self.entries = [_MASKED] * PINS
        self._update_routes()

    def set_irq(self, pin: int, level: bool) -> None:
        """Set the line of `pin`; whether it counts high or low is the device's affair."""
        bit = 1 << pin
        with self._lock:
            was = self.lines & bit
            self.lines = self.lines | bit if level else self.lines & ~bit
            if level and (self.entries[pin] & _LEVEL or not was):
                self._deliver(pin)

    def eoi(self, vector: int) -> None:
        """A CPU ended the interrupt `vector`; level-triggered lines still up are delivered anew."""
        with self._lock:
            for pin, entry in enumerate(self.entries):
                if entry & _REMOTE_IRR and entry & _VECTOR == vector:
                    self.entries[pin] &= ~_REMOTE_IRR
                    if self.lines >> pin & 1:
                        self._deliver(pin)
            self._update_routes()

    def read(self, offset: int, size: int) -> int:
        """See MmioDevice: the two registers are 32 bits wide, on 16-byte boundaries."""
        with self._lock:
            value = self.select if offset == _SELECT else 0
            if offset == _WINDOW:
                value = self._register()
        return value & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 (MmioDevice)
        """See MmioDevice."""
        if offset == _EOI:
            self.eoi(value & _VECTOR)
            return
        with self._lock:
            if offset == _SELECT:
                self.select = value & 0xFF
            elif offset == _WINDOW:
                self._set_register(value & 0xFFFF_FFFF)

    def _register(self) -> int:
        if self.select in (_ID, _ARBITRATION):
            return self.id << 24
        if self.select == _VERSION_REGISTER:
            return (PINS - 1) << 16 | _VERSION
        pin, upper = divmod(self.select - _FIRST_ENTRY, 2)
        if not 0 <= pin < PINS:
            return 0
        return self.entries[pin] >> (32 if upper else 0) & 0xFFFF_FFFF

    def _set_register(self, value: int) -> None:
        if self.select == _ID:
            self.id = value >> 24 & 0xF
            return
        pin, upper = divmod(self.select - _FIRST_ENTRY, 2)
        if not 0 <= pin < PINS:
            return
        entry = self.entries[pin]
        if upper:
            entry = entry & 0xFFFF_FFFF | value << 32
        else:
            entry = entry & ~(0xFFFF_FFFF & ~_READ_ONLY) | value & ~_READ_ONLY
            if not entry & _LEVEL:
                entry &= ~_REMOTE_IRR  # drivers clear it so where no EOI comes
        self.entries[pin] = entry
        self._update_routes()
        if entry & _LEVEL and self.lines >> pin & 1:
            self._deliver(pin)

    def _deliver(self, pin: int) -> None:
        entry = self.entries[pin]
        if entry & (_MASKED | _REMOTE_IRR) or entry & _DELIVERY_MODE == _EXT_INT:
            return
        if entry & _LEVEL:
            self.entries[pin] |= _REMOTE_IRR
        self._send(*_message(entry))

    def _update_routes(self) -> None:
        # A masked entry still waits for the EOI of what it delivered before.
        routes = {
            pin: _message(entry)
            for pin, entry in enumerate(self.entries)
            if not entry & _MASKED or entry & _REMOTE_IRR
        }
        if routes != self._routes:
            self._routes = routes
            self._route(routes)


def _message(entry: int) -> Message:
    destination = entry >> _DESTINATION & 0xFF
    extended = entry >> _EXTENDED_DESTINATION & _EXTENDED_MASK
    address = extended << 40 | _MSI_ADDRESS | destination << 12
    if entry & _LOGICAL:
        address |= _MSI_LOGICAL
    data = entry & (_VECTOR | _DELIVERY_MODE) | _MSI_ASSERT
    return address, data | _MSI_LEVEL if entry & _LEVEL else data
