"""All tables of a machine, and where each of them goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cpufw_x86.acpi.config import AcpiConfig, AcpiCpu
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


class AcpiBuilder:
    """Builds the tables that describe `config`; the long ones once for all addresses."""

    def __init__(self, config: AcpiConfig) -> None:
        self._config = config
        self._dsdt = dsdt(config)
        self._others = []
        if config.numa is not None:
            self._others += [srat(config, config.numa), slit(config.numa)]
        if config.ecam is not None:
            self._others.append(mcfg(config.ecam))

    @property
    def size(self) -> int:
        """Bytes of `AcpiTables.tables`, at any address and whichever CPUs are enabled."""
        return len(self.at(0, self._config.cpus).tables)

    def at(self, address: int, cpus: Sequence[AcpiCpu]) -> AcpiTables:
        """The tables for `address`, a multiple of 64 below 4 GiB.

        `cpus` are those of the configuration; which of them are enabled may have changed.
        """
        placed = bytearray()
        config = replace(self._config, cpus=cpus)

        def place(table: bytes) -> int:
            placed.extend(bytes(-len(placed) % _ALIGNMENT))
            where = address + len(placed)
            placed.extend(table)
            return where

        facs_address, dsdt_address = place(facs()), place(self._dsdt)
        addresses = [place(fadt(config, dsdt_address, facs_address)), place(madt(config))]
        addresses += map(place, self._others)
        root = rsdp(place(xsdt(addresses)))
        return AcpiTables(root, bytes(placed))


def build_acpi(config: AcpiConfig, address: int) -> AcpiTables:
    """The tables that describe `config`, for `address`, a multiple of 64 below 4 GiB."""
    return AcpiBuilder(config).at(address, config.cpus)
