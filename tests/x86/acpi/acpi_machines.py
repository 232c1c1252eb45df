"""The machines whose ACPI tables the tests look at, and the tables as a guest would find them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from cpufw.core.topology import parse_smp
from cpufw_x86.acpi import AcpiConfig, AcpiCpu, AcpiTables, build_acpi
from cpufw_x86.apicid import X86_LEVELS, apic_id
from cpufw_x86.numa import parse_numa

MIB = 1 << 20
TABLES, RSDP = 0x7FF_0000, 0xE_0000


def machine(smp: str, numa: Sequence[str] = (), **devices: object) -> AcpiConfig:
    topology = parse_smp(smp, X86_LEVELS, 1024)
    layout = parse_numa(numa, topology, 128 * MIB)
    cpus = [
        AcpiCpu(
            index,
            apic_id(topology, slot),
            enabled=index < topology.cpus,
            removable=index > 0,
            node=layout.slots[index] if layout else None,
        )
        for index, slot in enumerate(topology.slots())
    ]
    return AcpiConfig(cpus, numa=layout, **devices)  # type: ignore[arg-type]


FULL = {
    "uarts": ((0x3F8, 4), (0x2F8, 3)),
    "virtio": ((0xFEB0_0000, 0x200, 16), (0xFEB0_0200, 0x200, 17)),
    "pci": True,
    "i8042": True,
    "fw_cfg": 0x510,
    "reserved_ports": (range(0xE9, 0xEA), range(0xF4, 0xF8)),
}

MACHINES = {
    "1-cpu-every-device": machine("1", **FULL),
    "1-of-4": machine("1,maxcpus=4", uarts=((0x3F8, 4),)),
    "2-sockets-numa": machine(
        "2,maxcpus=4,sockets=2,cores=2",
        (
            "node,mem=32M",
            "node,mem=96M",
            "cpu,node-id=1,socket-id=0",
            "cpu,node-id=0,socket-id=1",
            "dist,src=0,dst=1,val=31",
        ),
        uarts=((0x3F8, 4),),
        pci=True,
    ),
    "300-cpus-x2apic": machine("1,maxcpus=300,sockets=2,cores=150"),
}


class Memory:
    """Guest memory with nothing but the tables, read as a guest reads it."""

    def __init__(self, tables: AcpiTables) -> None:
        self.areas = {RSDP: tables.rsdp, TABLES: tables.tables}

    def read(self, address: int, size: int) -> bytes:
        for start, data in self.areas.items():
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        raise AssertionError(f"no table at {address:#x}")

    def number(self, address: int, size: int) -> int:
        return int.from_bytes(self.read(address, size), "little")

    def table(self, address: int) -> bytes:
        return self.read(address, self.number(address + 4, 4))

    def found(self) -> dict[str, bytes]:
        """Every table that can be reached from the root pointer, by signature."""
        assert self.read(RSDP, 8) == b"RSD PTR "
        xsdt = self.table(self.number(RSDP + 24, 8))
        addresses = [address for (address,) in struct.iter_unpack("<Q", xsdt[36:])]
        tables = [xsdt, *map(self.table, addresses)]
        by_name = {each[:4].decode(): each for each in tables}
        assert len(by_name) == len(tables)
        fadt = by_name["FACP"]
        dsdt, facs = (int.from_bytes(fadt[at : at + 4], "little") for at in (40, 36))
        assert int.from_bytes(fadt[140:148], "little") == dsdt
        by_name["DSDT"], by_name["FACS"] = self.table(dsdt), self.table(facs)
        assert dsdt % 4 == 0
        assert facs % 64 == 0, "ACPI 6.5, 5.2.10"
        return by_name


def tables_of(config: AcpiConfig) -> dict[str, bytes]:
    return Memory(build_acpi(config, TABLES)).found()


def subtables(table: bytes, start: int) -> list[tuple[int, bytes]]:
    """Type and bytes of each entry of a MADT (start 44) or an SRAT (start 48)."""
    found = []
    while start < len(table):
        kind, size = table[start], table[start + 1]
        assert size >= 2
        found.append((kind, table[start : start + size]))
        start += size
    assert start == len(table)
    return found
