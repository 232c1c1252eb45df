"""The tables, found and read as an operating system does, and judged by ACPICA's own tools."""

from __future__ import annotations

import re
import struct
import subprocess
import time
from pathlib import Path

import pytest
from acpi_machines import (
    MACHINES,
    TABLES,
    Memory,
    machine,
    subtables,
    tables_of,
)
from acpi_text import ACPIEXEC, GOLDEN, IASL, PACKAGE, disassemble, golden_text, iasl, version

from cpufw_x86.acpi import AcpiBuilder, build_acpi

needs_iasl = pytest.mark.skipif(IASL is None, reason=f"iasl (package {PACKAGE}) is not installed")
needs_acpiexec = pytest.mark.skipif(
    ACPIEXEC is None, reason=f"acpiexec (package {PACKAGE}) is not installed"
)
every_machine = pytest.mark.parametrize("name", MACHINES)

LOCAL_APIC, IO_APIC, OVERRIDE, NMI, X2APIC, X2APIC_NMI = 0, 1, 2, 4, 9, 10
ENABLED, ONLINE_CAPABLE = 1, 2


# --- all tables ---


@every_machine
def test_checksums_are_right(name: str) -> None:
    tables = build_acpi(MACHINES[name], TABLES)
    assert sum(tables.rsdp[:20]) % 256 == 0
    assert sum(tables.rsdp) % 256 == 0
    for signature, table in Memory(tables).found().items():
        if signature != "FACS":  # it has none
            assert sum(table) % 256 == 0, signature


@every_machine
def test_length_does_not_depend_on_address_or_presence(name: str) -> None:
    here = build_acpi(MACHINES[name], TABLES)
    there = build_acpi(MACHINES[name], 0xBFF0_0000)
    assert len(here.tables) == len(there.tables)
    none, every = (machine(f"{cpus},maxcpus=5") for cpus in (1, 5))
    assert len(build_acpi(none, TABLES).tables) == len(build_acpi(every, TABLES).tables)


def test_one_builder_serves_every_address_and_whoever_is_plugged() -> None:
    none, every = (machine(f"{cpus},maxcpus=5") for cpus in (1, 5))
    builder = AcpiBuilder(none)
    for config, address in ((none, TABLES), (every, TABLES), (every, 0xBFF0_0000)):
        built = builder.at(address, config.cpus)
        assert built == build_acpi(config, address)
        assert len(built.tables) == builder.size


@needs_iasl
@every_machine
def test_iasl_disassembles_every_table_without_complaint(name: str, tmp_path: Path) -> None:
    for signature, table in tables_of(MACHINES[name]).items():
        text, said = disassemble(signature, table, tmp_path)
        complaints = r"error|warning|invalid|unknown|unresolved|exception|\*\*\*\*"
        assert not re.search(complaints, said + text, re.IGNORECASE), (signature, said)


@needs_iasl
@every_machine
def test_the_namespace_compiles_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    """Disassembled and compiled again: iasl understood each byte as it was meant."""
    ours = tables_of(MACHINES[name])["DSDT"]
    disassemble("DSDT", ours, tmp_path)
    said = iasl(tmp_path, "-oa", "-of", "-p", "again", "DSDT.dsl")
    assert "0 Errors, 0 Warnings" in said, said
    again = (tmp_path / "again.aml").read_bytes()
    assert again[36:] == ours[36:]


@needs_iasl
@every_machine
def test_golden_text(name: str) -> None:
    header, _, expected = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").partition("\n")
    if f"iasl {version()}:" not in header:
        pytest.skip(f"the golden text is of another iasl than {version()}: {header}")
    assert golden_text(name) == expected, f"if that is wanted: {header.partition(': ')[2]}"


# --- what is in them ---


@pytest.mark.parametrize(("cpus", "slots"), [(1, 1), (1, 4), (3, 4), (255, 255)])
def test_slots_are_enabled_or_online_capable(cpus: int, slots: int) -> None:
    entries = subtables(tables_of(machine(f"{cpus},maxcpus={slots}"))["APIC"], 44)
    flags = [struct.unpack("<BBI", entry[2:]) for kind, entry in entries if kind == LOCAL_APIC]
    assert flags == [(i, i, ENABLED if i < cpus else ONLINE_CAPABLE) for i in range(slots)]
    assert not any(kind in (X2APIC, X2APIC_NMI) for kind, _ in entries)


def test_ids_beyond_254_have_x2apic_entries() -> None:
    entries = subtables(tables_of(machine("400,maxcpus=512"))["APIC"], 44)
    low = [entry[3] for kind, entry in entries if kind == LOCAL_APIC]
    high = [struct.unpack("<III", entry[4:]) for kind, entry in entries if kind == X2APIC]
    assert low == list(range(255)), "255 is the broadcast id of xAPIC"
    assert high == [(i, ENABLED if i < 400 else ONLINE_CAPABLE, i) for i in range(255, 512)]
    kinds = [kind for kind, _ in entries]
    assert (kinds.count(NMI), kinds.count(X2APIC_NMI)) == (1, 1)


def test_sparse_apic_ids_keep_their_uid() -> None:
    entries = subtables(tables_of(machine("6,sockets=2,cores=3"))["APIC"], 44)
    ids = [(entry[2], entry[3]) for kind, entry in entries if kind == LOCAL_APIC]
    assert ids == [(0, 0), (1, 1), (2, 2), (3, 4), (4, 5), (5, 6)]


def test_interrupts_are_wired_as_on_a_pc() -> None:
    entries = subtables(tables_of(MACHINES["1-of-4"])["APIC"], 44)
    overrides = [struct.unpack("<BBIH", e[2:]) for kind, e in entries if kind == OVERRIDE]
    level_high = 0xD
    assert overrides == [(0, 0, 2, 0), (0, 9, 9, level_high)]
    assert [e[4:].hex() for kind, e in entries if kind == IO_APIC] == ["0000c0fe00000000"]
    assert [e[2:].hex() for kind, e in entries if kind == NMI] == ["ff000001"], "all, on LINT1"


def test_without_8259s_and_8254_nothing_is_said_of_them() -> None:
    madt = tables_of(machine("1", pic=False))["APIC"]
    assert madt[40] == 0, "PCAT_COMPAT"
    assert [e[3] for kind, e in subtables(madt, 44) if kind == OVERRIDE] == [9]


@pytest.mark.parametrize(
    ("devices", "flags"),
    [
        ({}, 0b000100),
        ({"uarts": ((0x3F8, 4),)}, 0b000101),
        ({"i8042": True}, 0b000111),
        ({"rtc": False}, 0b100100),
    ],
)
def test_fadt_tells_which_old_devices_there_are(devices: dict[str, object], flags: int) -> None:
    fadt = tables_of(machine("1", **devices))["FACP"]
    assert struct.unpack_from("<H", fadt, 109) == (flags,)


def test_numa_tables_cover_memory_and_every_slot() -> None:
    tables = tables_of(MACHINES["2-sockets-numa"])
    entries = subtables(tables["SRAT"], 48)
    cpus = {e[3]: e[2] for kind, e in entries if kind == 0 and e[4] == 1}
    assert cpus == {0: 1, 1: 1, 2: 0, 3: 0}
    memory = [struct.unpack_from("<I2xQQ", e, 2) for kind, e in entries if kind == 1]
    assert memory == [(0, 0, 32 << 20), (1, 32 << 20, 96 << 20)]
    assert tables["SLIT"][36:] == struct.pack("<Q4B", 2, 10, 31, 31, 10)


def test_numa_with_x2apic_ids() -> None:
    tables = tables_of(machine("300,sockets=2,cores=150", ("node", "node")))
    entries = [
        struct.unpack_from("<II", e, 4) for kind, e in subtables(tables["SRAT"], 48) if kind == 2
    ]
    assert entries == [(1, apic_id) for apic_id in range(256, 406)]


def test_without_nodes_or_ecam_there_are_no_such_tables() -> None:
    assert not {"SRAT", "SLIT", "MCFG"} & set(tables_of(MACHINES["1-cpu-every-device"]))


def test_ecam_is_described() -> None:
    tables = tables_of(machine("1", pci=True, ecam=range(0xB000_0000, 0xB100_0000)))
    assert struct.unpack_from("<QHBB", tables["MCFG"], 44) == (0xB000_0000, 0, 0, 15)


# --- the namespace at work, in ACPICA's interpreter with registers that are plain memory ---


def execute(name: str, folder: Path, *commands: str) -> str:
    tables = tables_of(MACHINES[name])
    for signature in ("DSDT", "FACP"):
        (folder / signature).write_bytes(tables[signature])
    done = subprocess.run(
        [str(ACPIEXEC), "-b", ";".join(commands), "DSDT", "FACP"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


@needs_acpiexec
@every_machine
def test_interpreter_loads_and_runs_it_without_complaint(name: str, tmp_path: Path) -> None:
    last = len(MACHINES[name].cpus) - 1
    said = execute(name, tmp_path, rf"execute \_SB.CPUS.C{last:03X}._STA", r"execute \_GPE._E02")
    assert f"Evaluation of \\_SB.CPUS.C{last:03X}._STA returned" in said
    assert "[Integer] = 0000000000000000" in said, "an empty slot has no device"
    assert not re.search(r"ACPI (BIOS )?(Error|Warning)|AE_NOT_FOUND|Excess", said), said


@needs_acpiexec
def test_every_notification_goes_to_its_own_processor(tmp_path: Path) -> None:
    indexes = [0, 1, 2, 149, 150, 151, 255, 256, 298, 299]
    said = execute(
        "300-cpus-x2apic",
        tmp_path,
        *(rf"execute \_SB.CPUS.TELL 0x{index:X} {1 + 2 * (index % 2)}" for index in indexes),
    )
    heard = re.findall(r"Notify on \[(\w+)\] \S+ Value (\w+)", said)
    assert heard == [(f"C{i:03X}", "0x03" if i % 2 else "0x01") for i in indexes]


def test_1024_cpus_are_built_quickly_and_stay_small() -> None:
    config = machine("1,maxcpus=1024,sockets=4,cores=128,threads=2")
    start = time.process_time()
    tables = build_acpi(config, TABLES)
    assert time.process_time() - start < 0.3
    assert len(tables.tables) < 160 * 1024
