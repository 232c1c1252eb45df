"""ACPI: what a guest is told about the machine. Pure data, made without KVM."""

from cpufw_x86.acpi.build import AcpiBuilder, AcpiTables, build_acpi
from cpufw_x86.acpi.config import AcpiConfig, AcpiCpu

__all__ = ["AcpiBuilder", "AcpiConfig", "AcpiCpu", "AcpiTables", "build_acpi"]
