"""The CPU hot-plug register block: how a guest learns of plugged and unplugged CPUs.

Source: QEMU docs/specs/acpi_cpu_hotplug, the modern interface at its ICH9 address.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import ClassVar

from cpufw.core.vmstate import VMState, nested_list, u8, u32
from cpufw.errors import HotplugError
from cpufw_x86.kvm import X86VM
from cpufw_x86.kvm.native import ffi, lib

CPU_HOTPLUG_PORT = 0xCD8
CPU_HOTPLUG_GPE = 2  # the general-purpose event that says "look at the block"

_REGISTER_BYTES = 12


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


# Plain numbers: a flag's own operators cost tenfold, and a guest waits for the plug.
_ENABLED, _INSERT, _REMOVE = int(Flag.ENABLED), int(Flag.INSERT), int(Flag.REMOVE)
_EVERY_FLAG = 0xFF

_SLOT_STATE = VMState(
    "cpu-hotplug/slot",
    1,
    u8("flags"),
    u32("ost-event", attr="ost_event"),
    u32("ost-status", attr="ost_status"),
)


class CpuHotplugBlock:
    """The register block of a machine whose slot i holds (or can hold) CPU `arch_ids[i]`.

    The registers are in C: behind `attach` the run loop serves the guest by itself, and only an
    ejection and a status report come here. The machine calls `set_enabled`, `request_insert`,
    `request_remove` and `cancel_remove`. The block calls, on the thread of the vCPU that made the
    access and with no lock held:

    - `raise_gpe(CPU_HOTPLUG_GPE)`: the guest has to look at the block;
    - `on_ost(slot, event, status)`: it reports how far it is (ACPI 6.5 §6.3.5). Linux
      reports success of an ejection after it, so the slot may be empty by then;
    - `on_eject(slot)`: the CPU is gone. The slot is already empty in the block.

    The guest may eject any enabled CPU but the boot CPU, asked for or not, as on QEMU:
    the specification does not tie the eject bit to a request, and Linux uses it for
    `echo 1 > eject`. Byte registers answer byte accesses, double-word registers
    double-word ones; any other access reads 0 and changes nothing.
    """

    vmstate: ClassVar[VMState] = VMState(
        "cpu-hotplug",
        1,
        u32("selector", attr="_block.selector"),
        u8("command", attr="_block.command"),
        nested_list("slots", _SLOT_STATE, attr="_slots"),
    )

    def __init__(
        self,
        arch_ids: Sequence[int],
        *,
        raise_gpe: Callable[[int], None],
        on_ost: Callable[[int, int, int], None],
        on_eject: Callable[[int], None],
    ) -> None:
        self.ports = range(CPU_HOTPLUG_PORT, CPU_HOTPLUG_PORT + _REGISTER_BYTES)
        self._count = len(arch_ids)
        block = lib.cpufw_cpu_hotplug_new(self._count, arch_ids)
        if not block:
            raise HotplugError(f"no memory for {self._count} CPU slots")
        self._block = ffi.gc(block, lib.cpufw_cpu_hotplug_free)
        self._slots = [self._block.slots[index] for index in range(self._count)]
        self._raise_gpe = raise_gpe
        self._on_ost = on_ost
        self._on_eject = on_eject

    def attach(self, vm: X86VM) -> None:
        """Let the run loop of `vm` serve the registers; this block must outlive it."""
        operations = lib.cpufw_cpu_hotplug_ops()
        vm.add_port_device(self.ports, _address(operations), _address(self._block))

    # --- The machine's side -------------------------------------------------------------

    def set_enabled(self, slot: int, enabled: bool) -> None:
        """Say that `slot` holds a CPU from the start, or no longer; pending events go."""
        self._change(slot, clear=_EVERY_FLAG, set=_ENABLED if enabled else 0)

    def request_insert(self, slot: int) -> None:
        """Enable `slot` and tell the guest that it holds a new CPU."""
        self._change(slot, set=_ENABLED | _INSERT)
        self._raise_gpe(CPU_HOTPLUG_GPE)

    def request_remove(self, slot: int) -> None:
        """Ask the guest to give up the CPU in `slot`; raises HotplugError if it is empty.

        Asking again is fine: the guest is told again.
        """
        if not self._change(slot, needed=_ENABLED, set=_REMOVE) & _ENABLED:
            raise HotplugError(
                f"CPU slot {slot} is empty: there is nothing to remove; plug a CPU first"
            )
        self._raise_gpe(CPU_HOTPLUG_GPE)

    def cancel_remove(self, slot: int) -> bool:
        """Withdraw a removal. False: too late, the guest has seen it (or none was asked)."""
        return bool(self._change(slot, clear=_REMOVE) & _REMOVE)

    def reset(self) -> None:
        """Forget the news of plugged CPUs: a guest that starts anew finds them by itself.

        A removal stays wanted; the guest that starts will see it with the next event.
        """
        for slot in range(self._count):
            self._change(slot, clear=_INSERT)

    def flags(self, slot: int) -> Flag:
        """What the guest would read for `slot`."""
        return Flag(self._change(slot))

    def last_ost(self, slot: int) -> tuple[int, int]:
        """The last `_OST` source event and status the guest stored for `slot`; 0, 0 at first."""
        self._check(slot)
        registers = lib.cpufw_cpu_hotplug_slot(self._block, slot)
        return registers.ost_event, registers.ost_status

    def _change(self, slot: int, needed: int = 0, clear: int = 0, set: int = 0) -> int:
        self._check(slot)
        before: int = lib.cpufw_cpu_hotplug_change(self._block, slot, needed, clear, set)
        return before

    def _check(self, slot: int) -> None:
        if not 0 <= slot < self._count:
            raise HotplugError(f"CPU slot {slot} does not exist; slots are 0..{self._count - 1}")

    # --- The guest's side ---------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """Answer the guest; see PortDevice."""
        value: int = lib.cpufw_cpu_hotplug_read(self._block, offset, size)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Do what the guest asks; see PortDevice."""
        slot = ffi.new("uint32_t *")
        kind = lib.cpufw_cpu_hotplug_write(self._block, offset, size, value & 0xFFFF_FFFF, slot)
        if kind == lib.CPUFW_CPU_EJECTED:
            self._on_eject(slot[0])
        elif kind == lib.CPUFW_CPU_OST:
            self._on_ost(slot[0], *self.last_ost(slot[0]))


def _address(pointer: object) -> int:
    return int(ffi.cast("uintptr_t", pointer))
