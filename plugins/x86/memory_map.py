"""Where things are in a PC's guest-physical memory: RAM, holes, ACPI tables, boot data."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from cpufw.errors import UsageError

PAGE = 0x1000
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# Devices and the APICs live from 3 GiB to 4 GiB, as on QEMU's pc.
HOLE_START, HOLE_END = 3 * GIB, 4 * GIB

# The IBM PC's memory below 1 MiB: an extended BIOS data area of 1 KiB, video memory, option ROMs
# and the BIOS. Here there is RAM behind all of it.
LOW_MEMORY_END = 0x9_FC00
HIGH_MEMORY = MIB

# ACPI 6.5, 5.2.5.1: without EFI an RSDP is looked for in 0xe0000-0xfffff, on 16-byte boundaries.
RSDP_ADDRESS = 0xE_0000
RSDP_SIZE = 36  # ACPI 6.5, table 5.3
# Where RAM ends at 1 MiB the tables lie in the same area.
_LOW_ACPI = range(0xE_1000, HIGH_MEMORY)

# Four pages that VMX needs where it cannot run real mode by itself: one for a page table, three
# for a task state segment. They lie below the largest firmware image.
LARGEST_FIRMWARE = 16 * MIB
IDENTITY_MAP_ADDRESS = HOLE_END - LARGEST_FIRMWARE - 4 * PAGE
TSS_ADDRESS = IDENTITY_MAP_ADDRESS + PAGE

PCI_CONFIG = range(0xE000_0000, 0xE010_0000)
"""The configuration space of PCI's bus 0, mapped into memory."""

# What the boot CPU finds at its start. A guest may reuse it all once it has read it.
BOOT_INFO = range(0x1_0000, 0x2_0000)
"""What a boot protocol passes: Linux's zero page, Multiboot's or PVH's information."""
COMMAND_LINE = range(0x2_0000, 0x3_0000)
BOOT_TABLES = range(0x9_0000, 0x9_7000)
"""The GDT, and in long mode the page tables from 0x91000; the stack ends where they begin."""


class MemoryType(enum.IntEnum):
    """ACPI 6.5, table 15.1: address range types."""

    RAM = 1
    RESERVED = 2
    ACPI = 4  # NVS, never to be used for anything else: the guest writes the FACS


class MemoryRange(NamedTuple):
    """`size` bytes from `address` and what they are."""

    address: int
    size: int
    type: MemoryType

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.address + self.size


_NEVER_USABLE = (
    MemoryRange(PCI_CONFIG.start, len(PCI_CONFIG), MemoryType.RESERVED),
    MemoryRange(IDENTITY_MAP_ADDRESS, 4 * PAGE, MemoryType.RESERVED),
)


@dataclass(frozen=True)
class MemoryMap:
    """The map of a machine with `ram_size` bytes of RAM.

    `acpi_size` bytes are kept for ACPI tables at `acpi_address`, `firmware_size` for a firmware
    image that ends at 4 GiB. Raises `UsageError` where the tables do not fit.
    """

    ram_size: int
    acpi_size: int = 0
    firmware_size: int = 0

    def __post_init__(self) -> None:
        if self.acpi_address < HIGH_MEMORY and self.acpi_size > len(_LOW_ACPI):
            raise UsageError(
                f"memory of {self.ram_size // KIB} KiB has no room for {self.acpi_size} bytes of "
                "ACPI tables; give the guest at least "
                f"{self.needed(HIGH_MEMORY)}M"
            )

    @property
    def low_end(self) -> int:
        """Where the RAM below 4 GiB ends."""
        return min(self.ram_size, HOLE_START)

    @property
    def high_size(self) -> int:
        """How much RAM there is from 4 GiB on."""
        return self.ram_size - self.low_end

    @property
    def acpi_address(self) -> int:
        """Where the ACPI tables begin: at the top of low RAM, a multiple of 4 KiB."""
        address = page_down(self.low_end) - page_up(self.acpi_size)
        return address if address >= HIGH_MEMORY else _LOW_ACPI.start

    @property
    def rsdp_address(self) -> int:
        """Where the root system description pointer is."""
        return RSDP_ADDRESS

    @property
    def usable_end(self) -> int:
        """Where the low RAM that a guest may use ends: below the ACPI tables."""
        return self.acpi_address if self.acpi_address >= HIGH_MEMORY else self.low_end

    def needed(self, end: int) -> int:
        """The MiB of memory with which `usable_end` is `end` or higher, ACPI tables and all."""
        return -(-(page_up(end) + page_up(self.acpi_size)) // MIB)

    def acpi_ranges(self) -> tuple[range, ...]:
        """Where the RSDP and the ACPI tables are."""
        rsdp = range(RSDP_ADDRESS, RSDP_ADDRESS + RSDP_SIZE)
        return (rsdp, range(self.acpi_address, self.acpi_address + self.acpi_size))

    def has_ram(self, address: int, size: int) -> bool:
        """Whether there is RAM for `size` bytes at `address`."""
        end = address + size
        return address >= 0 and (
            end <= self.low_end or (address >= HOLE_END and end <= HOLE_END + self.high_size)
        )

    def e820(self) -> tuple[MemoryRange, ...]:
        """All ranges in the order of their addresses, none overlapping."""
        ranges = [
            MemoryRange(0, LOW_MEMORY_END, MemoryType.RAM),
            MemoryRange(LOW_MEMORY_END, HIGH_MEMORY - LOW_MEMORY_END, MemoryType.RESERVED),
        ]
        if self.usable_end > HIGH_MEMORY:
            size = self.usable_end - HIGH_MEMORY
            ranges.append(MemoryRange(HIGH_MEMORY, size, MemoryType.RAM))
        if self.low_end > self.usable_end:
            size = self.low_end - self.usable_end
            ranges.append(MemoryRange(self.usable_end, size, MemoryType.ACPI))
        ranges += _NEVER_USABLE
        if self.firmware_size:
            start = HOLE_END - self.firmware_size
            ranges.append(MemoryRange(start, self.firmware_size, MemoryType.RESERVED))
        if self.high_size:
            ranges.append(MemoryRange(HOLE_END, self.high_size, MemoryType.RAM))
        return tuple(ranges)

    def firmware_ranges(self) -> tuple[MemoryRange, ...]:
        """What firmware has to know to make its own map: all the RAM, and what it must not use.

        Of the types only RAM and reserved, as QEMU's PC tells them.
        """
        ranges = [MemoryRange(0, self.usable_end, MemoryType.RAM)]
        if self.low_end > self.usable_end:
            size = self.low_end - self.usable_end
            ranges.append(MemoryRange(self.usable_end, size, MemoryType.RESERVED))
        ranges += _NEVER_USABLE
        if self.high_size:
            ranges.append(MemoryRange(HOLE_END, self.high_size, MemoryType.RAM))
        return tuple(ranges)


def pack_e820(ranges: Iterable[MemoryRange]) -> bytes:
    """The ranges as INT 15h, AX=E820h returns them: 20 bytes each (ACPI 6.5, table 15.5)."""
    return b"".join(struct.pack("<QQI", each.address, each.size, each.type) for each in ranges)


def page_up(number: int) -> int:
    """The next multiple of 4 KiB."""
    return -(-number // PAGE) * PAGE


def page_down(number: int) -> int:
    """The multiple of 4 KiB below."""
    return number // PAGE * PAGE
