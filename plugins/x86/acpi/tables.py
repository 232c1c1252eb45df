"""The tables that are plain data. Sections are those of ACPI 6.5."""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence

from cpufw_x86.acpi.config import AcpiConfig
from cpufw_x86.devices.acpi_pm import GPE0, PM1_CONTROL, PM1_EVENT, PM_BASE, PM_TIMER
from cpufw_x86.numa import NumaLayout

SCI_IRQ = 9
_RESET_PORT, _RESET_VALUE = 0xCF9, 6  # the chipset's reset control: SYS_RST and RST_CPU
_OEM_ID, _OEM_TABLE_ID, _CREATOR = b"CPUFW ", b"CPUFWPC ", b"CPFW"
_HEADER = struct.Struct("<4sIBB6s8sI4sI")


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """`body` after a header with its length and checksum (5.2.6)."""
    size = _HEADER.size + len(body)
    oem_revision = creator_revision = 1
    head = _HEADER.pack(
        signature,
        size,
        revision,
        0,
        _OEM_ID,
        _OEM_TABLE_ID,
        oem_revision,
        _CREATOR,
        creator_revision,
    )
    return _with_checksum(head + body, 9)


def _with_checksum(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes((-sum(data) & 0xFF,)) + data[offset + 1 :]


def rsdp(xsdt_address: int) -> bytes:
    """The root pointer (5.2.5.3), revision 2, with no RSDT."""
    size = 36
    first = _with_checksum(struct.pack("<8sB6sBI", b"RSD PTR ", 0, _OEM_ID, 2, 0), 8)
    return _with_checksum(first + struct.pack("<IQB3x", size, xsdt_address, 0), 32)


def xsdt(addresses: Sequence[int]) -> bytes:
    """The list of tables (5.2.8)."""
    return table(b"XSDT", 1, struct.pack(f"<{len(addresses)}Q", *addresses))


def facs() -> bytes:
    """The firmware's control structure (5.2.10), version 2: no waking, the global lock free."""
    size, version = 64, 2
    return struct.pack("<4sI24xB31x", b"FACS", size, version)


class FixedFlag(enum.IntFlag):
    """The FADT's feature flags (table 5.10) that this machine sets."""

    WBINVD = 1 << 0
    PROC_C1 = 1 << 2
    SLEEP_BUTTON_IS_NOT_FIXED = 1 << 5
    RTC_DOES_NOT_WAKE_BY_STATUS = 1 << 6
    RESET_REGISTER = 1 << 10
    USE_PLATFORM_CLOCK = 1 << 15
    FORCE_APIC_CLUSTER_MODEL = 1 << 18


class BootFlag(enum.IntFlag):
    """The FADT's IA-PC boot architecture flags (table 5.11) that this machine may set."""

    LEGACY_DEVICES = 1 << 0
    KEYBOARD_CONTROLLER = 1 << 1
    NO_VGA = 1 << 2
    NO_CMOS_RTC = 1 << 5


_FLAT_APIC_CPUS = 8  # what flat logical destinations reach
_CENTURY = 0x32  # where a PC's CMOS has it


def fadt(config: AcpiConfig, dsdt_address: int, facs_address: int) -> bytes:
    """The fixed hardware (5.2.9), revision 6.5: always in ACPI mode, a fixed power button."""
    flags = (
        FixedFlag.WBINVD
        | FixedFlag.PROC_C1
        | FixedFlag.SLEEP_BUTTON_IS_NOT_FIXED
        | FixedFlag.RTC_DOES_NOT_WAKE_BY_STATUS
        | FixedFlag.RESET_REGISTER
        | FixedFlag.USE_PLATFORM_CLOCK
    )
    if len(config.cpus) > _FLAT_APIC_CPUS:
        flags |= FixedFlag.FORCE_APIC_CLUSTER_MODEL
    boot = BootFlag.NO_VGA
    if config.uarts or config.i8042:
        boot |= BootFlag.LEGACY_DEVICES
    if config.i8042:
        boot |= BootFlag.KEYBOARD_CONTROLLER
    if not config.rtc:
        boot |= BootFlag.NO_CMOS_RTC
    major, minor, size = 6, 5, 276
    body = bytearray(size)

    def put(offset: int, form: str, *values: int) -> None:
        struct.pack_into("<" + form, body, offset, *values)

    event, control = PM_BASE + PM1_EVENT, PM_BASE + PM1_CONTROL
    timer, gpe0 = PM_BASE + PM_TIMER, PM_BASE + GPE0
    put(36, "II", facs_address, dsdt_address)
    put(46, "H", SCI_IRQ)
    put(56, "I", event)
    put(64, "I", control)
    put(76, "II", timer, gpe0)
    put(88, "BBBBB", 4, 2, 0, 4, 16)  # bytes of PM1 event, control, PM2, timer, GPE0
    put(96, "HH", 0xFFF, 0xFFF)  # C2 and C3 take longer than worth while: there are none
    put(108, "B", _CENTURY if config.rtc else 0)
    put(109, "H", boot)
    put(112, "I", flags)
    body[116:128] = _port(_RESET_PORT, 8, _BYTE)
    put(128, "B", _RESET_VALUE)
    put(131, "B", minor)
    # X_FIRMWARE_CTRL stays 0, as it must beside a FIRMWARE_CTRL; both DSDT fields are given.
    put(140, "Q", dsdt_address)
    body[148:160] = _port(event, 32, _WORD)
    body[172:184] = _port(control, 16, _WORD)
    body[208:220] = _port(timer, 32, _DWORD)
    body[220:232] = _port(gpe0, 128, _BYTE)
    return table(b"FACP", major, bytes(body[_HEADER.size :]))


_BYTE, _WORD, _DWORD = 1, 2, 3  # access sizes


def _port(port: int, bits: int, access: int) -> bytes:
    """A generic address structure (5.2.3.2): `bits` bits of registers in I/O space."""
    system_io = 1
    return struct.pack("<BBBBQ", system_io, bits, 0, access, port)


_ENABLED, _HOT_PLUGGABLE = 1 << 0, 1 << 1  # tables 5.57 and 5.58


def srat(config: AcpiConfig, numa: NumaLayout) -> bytes:
    """Which node memory and CPUs are in (5.2.16), the empty slots' CPUs included."""
    body = struct.pack("<I8x", 1)
    for cpu in config.cpus:
        node = cpu.node or 0
        if cpu.apic_id < 255:
            rest = (node >> 8).to_bytes(3, "little")
            body += struct.pack("<BBBBIB3sI", 0, 16, node & 0xFF, cpu.apic_id, _ENABLED, 0, rest, 0)
        else:
            body += struct.pack("<BBHIIIII", 2, 24, 0, node, cpu.apic_id, _ENABLED, 0, 0)
    for each in numa.nodes:
        for area in each.ranges:
            body += struct.pack(
                "<BBIHQQIIQ", 1, 40, each.id, 0, area.start, len(area), 0, _ENABLED, 0
            )
    return table(b"SRAT", 3, body)


def slit(numa: NumaLayout) -> bytes:
    """How far each node is from each (5.2.17)."""
    rows = b"".join(bytes(row) for row in numa.distances)
    return table(b"SLIT", 1, struct.pack("<Q", len(numa.nodes)) + rows)


def mcfg(ecam: range) -> bytes:
    """Where PCI's configuration space is mapped (PCI Firmware 3.0, 4.1.2)."""
    segment, buses = 0, len(ecam) >> 20
    return table(b"MCFG", 1, struct.pack("<8xQHBB4x", ecam.start, segment, 0, buses - 1))
