"""All tables of a machine, and where each of them goes."""

from __future__ import annotations

from dataclasses import dataclass

from cpufw_x86.acpi.config import AcpiConfig
from cpufw_x86.acpi.dsdt import dsdt
from cpufw_x86.acpi.madt import madt
from cpufw_x86.acpi.tables import facs, fadt, mcfg, rsdp, slit, srat, xsdt

_ALIGNMENT = 64  # what the FACS needs (ACPI 6.5, 5.2.10)


@dataclass(frozen=True)
class AcpiTables:
    """What to place in a guest's memory.

    rsdp    the root pointer, 36 bytes, goes to where the boot protocol looks for it
    tables  go to the address they were built for. The guest writes the FACS and must not use that
            memory for anything else: E820 type 4 (NVS), or reserved
    """

    rsdp: bytes
    tables: bytes


def build_acpi(config: AcpiConfig, address: int) -> AcpiTables:
    """The tables for `address`, a multiple of 64 below 4 GiB.

    Their length depends neither on it nor on which CPUs are enabled.
    """
    placed = bytearray()

    def place(table: bytes) -> int:
        placed.extend(bytes(-len(placed) % _ALIGNMENT))
        where = address + len(placed)
        placed.extend(table)
        return where

    facs_address, dsdt_address = place(facs()), place(dsdt(config))
    addresses = [place(fadt(config, dsdt_address, facs_address)), place(madt(config))]
    if config.numa is not None:
        addresses += [place(srat(config, config.numa)), place(slit(config.numa))]
    if config.ecam is not None:
        addresses.append(place(mcfg(config.ecam)))
    root = rsdp(place(xsdt(addresses)))
    return AcpiTables(root, bytes(placed))
