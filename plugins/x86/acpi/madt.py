"""The MADT: local APICs and how interrupts are wired (ACPI 6.5, 5.2.12)."""

from __future__ import annotations

import struct

from cpufw_x86.acpi.config import AcpiConfig, AcpiCpu
from cpufw_x86.acpi.tables import SCI_IRQ, table

_LOCAL_APIC, _IO_APIC = 0xFEE0_0000, 0xFEC0_0000
_PCAT_COMPAT = 1
_REVISION = 5

ENABLED, ONLINE_CAPABLE = 1 << 0, 1 << 1  # table 5.23

_ACTIVE_HIGH, _LEVEL = 0b01, 0b11 << 2  # MPS INTI flags, table 5.26
_LINT_NMI = 1
_PIT_IRQ, _PIT_GSI = 0, 2


def madt(config: AcpiConfig) -> bytes:
    """Every slot's APIC, enabled or (an empty slot) online-capable; NMI, I/O APIC, overrides."""
    body = struct.pack("<II", _LOCAL_APIC, _PCAT_COMPAT if config.pic else 0)
    for cpu in config.cpus:
        body += processor_entry(cpu, ENABLED if cpu.enabled else ONLINE_CAPABLE)
    every, every_x2apic = 0xFF, 0xFFFF_FFFF
    body += struct.pack("<BBBHB", 4, 6, every, 0, _LINT_NMI)
    if any(needs_x2apic_entry(cpu) for cpu in config.cpus):
        body += struct.pack("<BBHIB3x", 10, 12, 0, every_x2apic, _LINT_NMI)
    io_apic_id = first_gsi = isa = 0
    body += struct.pack("<BBBBII", 1, 12, io_apic_id, 0, _IO_APIC, first_gsi)
    overrides = [(SCI_IRQ, SCI_IRQ, _ACTIVE_HIGH | _LEVEL)]
    if config.pic:
        overrides.insert(0, (_PIT_IRQ, _PIT_GSI, 0))
    for irq, gsi, flags in overrides:
        body += struct.pack("<BBBBIH", 2, 10, isa, irq, gsi, flags)
    return table(b"APIC", _REVISION, body)


def needs_x2apic_entry(cpu: AcpiCpu) -> bool:
    """Whether a local APIC entry, with its numbers of 8 bits, cannot say it (255 is everyone)."""
    return cpu.apic_id >= 0xFF or cpu.index >= 0xFF


def processor_entry(cpu: AcpiCpu, flags: int) -> bytes:
    """A local APIC (5.2.12.2) or a local x2APIC entry (5.2.12.12)."""
    if needs_x2apic_entry(cpu):
        return struct.pack("<BBHIII", 9, 16, 0, cpu.apic_id, flags, cpu.index)
    return struct.pack("<BBBBI", 0, 8, cpu.index, cpu.apic_id, flags)
