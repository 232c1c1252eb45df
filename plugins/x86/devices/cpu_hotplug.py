"""The CPU hot-plug register block: how a guest learns of plugged and unplugged CPUs.

Source: QEMU docs/specs/acpi_cpu_hotplug, the modern interface at its ICH9 address.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cpufw.errors import HotplugError

CPU_HOTPLUG_PORT = 0xCD8
CPU_HOTPLUG_GPE = 2  # the general-purpose event that says "look at the block"

_REGISTER_BYTES = 12
_BOOT_CPU = 0
_DWORD = 0xFFFF_FFFF


class Register(enum.IntEnum):
    """Offsets in the block; the first is the selector when written, data 2 when read."""

    SELECTOR_OR_DATA2 = 0
    FLAGS = 4
    COMMAND = 5
    DATA = 8


class Flag(enum.IntFlag):
    """Bits of the flags register.

    Reading shows them. Writing INSERT or REMOVE clears that event, EJECT ejects the CPU,
    FIRMWARE_EJECT hands the ejection to firmware.
    """

    ENABLED = 1 << 0
    INSERT = 1 << 1
    REMOVE = 1 << 2
    EJECT = 1 << 3
    FIRMWARE_EJECT = 1 << 4


_EMPTY = Flag(0)
_EVENTS = Flag.INSERT | Flag.REMOVE
_QUIET = (_EMPTY, Flag.ENABLED)


class Command(enum.IntEnum):
    """What the command register can be asked."""

    NEXT_WITH_EVENT = 0
    OST_EVENT = 1
    OST_STATUS = 2
    ARCH_ID = 3


@dataclass(slots=True)
class _Slot:
    arch_id: int
    flags: Flag = _EMPTY
    ost_event: int = 0
    ost_status: int = 0


class CpuHotplugBlock:
    """The register block of a machine whose slot i holds (or can hold) CPU `arch_ids[i]`.

    The machine calls `set_enabled`, `request_insert`, `request_remove` and `cancel_remove`.
    The block calls, on the thread of the vCPU that made the access and with no lock held:

    - `raise_gpe(CPU_HOTPLUG_GPE)`: the guest has to look at the block;
    - `on_insert_seen(slot)`: the guest took note of the new CPU;
    - `on_ost(slot, event, status)`: it reports how far it is (ACPI 6.5 §6.3.5). Linux
      reports success of an ejection after it, so the slot may be empty by then;
    - `on_eject(slot)`: the CPU is gone. The slot is already empty in the block.

    The guest may eject any enabled CPU but the boot CPU, asked for or not, as on QEMU:
    the specification does not tie the eject bit to a request, and Linux uses it for
    `echo 1 > eject`. Byte registers answer byte accesses, double-word registers
    double-word ones; any other access reads 0 and changes nothing.
    """

    def __init__(
        self,
        arch_ids: Sequence[int],
        *,
        raise_gpe: Callable[[int], None],
        on_insert_seen: Callable[[int], None],
        on_ost: Callable[[int, int, int], None],
        on_eject: Callable[[int], None],
    ) -> None:
        self.ports = range(CPU_HOTPLUG_PORT, CPU_HOTPLUG_PORT + _REGISTER_BYTES)
        self._slots = [_Slot(arch_id) for arch_id in arch_ids]
        self._raise_gpe = raise_gpe
        self._on_insert_seen = on_insert_seen
        self._on_ost = on_ost
        self._on_eject = on_eject
        self._selector = 0
        self._command = int(Command.NEXT_WITH_EVENT)
        self._lock = threading.Lock()

    # --- The machine's side -------------------------------------------------------------

    def set_enabled(self, slot: int, enabled: bool) -> None:
        """Say that `slot` holds a CPU from the start, or no longer; pending events go."""
        with self._lock:
            self._slot(slot).flags = Flag.ENABLED if enabled else _EMPTY

    def request_insert(self, slot: int) -> None:
        """Enable `slot` and tell the guest that it holds a new CPU."""
        with self._lock:
            self._slot(slot).flags |= Flag.ENABLED | Flag.INSERT
        self._raise_gpe(CPU_HOTPLUG_GPE)

    def request_remove(self, slot: int) -> None:
        """Ask the guest to give up the CPU in `slot`; raises HotplugError if it is empty.

        Asking again is fine: the guest is told again.
        """
        with self._lock:
            chosen = self._slot(slot)
            if not chosen.flags & Flag.ENABLED:
                raise HotplugError(
                    f"CPU slot {slot} is empty: there is nothing to remove; plug a CPU first"
                )
            chosen.flags |= Flag.REMOVE
        self._raise_gpe(CPU_HOTPLUG_GPE)

    def cancel_remove(self, slot: int) -> bool:
        """Withdraw a removal. False: too late, the guest has seen it (or none was asked)."""
        with self._lock:
            chosen = self._slot(slot)
            pending = bool(chosen.flags & Flag.REMOVE)
            chosen.flags &= ~Flag.REMOVE
            return pending

    def flags(self, slot: int) -> Flag:
        """What the guest would read for `slot`."""
        with self._lock:
            return self._slot(slot).flags

    def last_ost(self, slot: int) -> tuple[int, int]:
        """The last `_OST` source event and status the guest stored for `slot`; 0, 0 at first."""
        with self._lock:
            chosen = self._slot(slot)
            return chosen.ost_event, chosen.ost_status

    def _slot(self, slot: int) -> _Slot:
        if not 0 <= slot < len(self._slots):
            raise HotplugError(
                f"CPU slot {slot} does not exist; slots are 0..{len(self._slots) - 1}"
            )
        return self._slots[slot]

    # --- The guest's side ---------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """Answer the guest; see PortDevice."""
        with self._lock:
            if self._selector >= len(self._slots):
                return 0
            slot = self._slots[self._selector]
            match offset, size:
                case Register.FLAGS, 1:
                    return int(slot.flags)
                case Register.DATA, 4 if self._command == Command.NEXT_WITH_EVENT:
                    return self._selector
                case Register.DATA, 4 if self._command == Command.ARCH_ID:
                    return slot.arch_id & _DWORD
                case Register.SELECTOR_OR_DATA2, 4 if self._command == Command.ARCH_ID:
                    return slot.arch_id >> 32 & _DWORD
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Do what the guest asks; see PortDevice."""
        with self._lock:
            if (offset, size) == (Register.SELECTOR_OR_DATA2, 4):
                self._selector = value & _DWORD
            if self._selector >= len(self._slots):
                return
            match offset, size:
                case Register.FLAGS, 1:
                    calls = self._write_flags(Flag(value & 0xFF))
                case Register.COMMAND, 1:
                    calls = self._write_command(value & 0xFF)
                case Register.DATA, 4:
                    calls = self._write_data(value & _DWORD)
                case _:
                    return
        for call in calls:
            call()

    def _write_flags(self, written: Flag) -> list[Callable[[], None]]:
        index = self._selector
        slot = self._slots[index]
        calls: list[Callable[[], None]] = []
        if written & slot.flags & Flag.INSERT:
            calls.append(lambda: self._on_insert_seen(index))
        slot.flags &= ~(written & _EVENTS)
        removable = bool(slot.flags & Flag.ENABLED) and index != _BOOT_CPU
        if written & Flag.EJECT and removable:
            slot.flags = _EMPTY
            calls.append(lambda: self._on_eject(index))
        elif written & Flag.FIRMWARE_EJECT and removable:
            slot.flags |= Flag.FIRMWARE_EJECT
        return calls

    def _write_command(self, command: int) -> list[Callable[[], None]]:
        self._command = command
        if command == Command.NEXT_WITH_EVENT:
            count = len(self._slots)
            for index in (*range(self._selector, count), *range(self._selector)):
                flags = self._slots[index].flags
                # Comparing costs a tenth of `&` on flags, and there can be a thousand slots.
                if flags not in _QUIET and flags & _EVENTS:
                    self._selector = index
                    break
        return []

    def _write_data(self, value: int) -> list[Callable[[], None]]:
        index = self._selector
        slot = self._slots[index]
        if self._command == Command.OST_EVENT:
            slot.ost_event = value
        elif self._command == Command.OST_STATUS:
            slot.ost_status = value
            event = slot.ost_event
            return [lambda: self._on_ost(index, event, value)]
        return []
