"""What ACPICA's tools make of a machine's tables.

Run as a program it writes the golden texts anew: `python tests/x86/acpi/acpi_text.py`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from acpi_machines import MACHINES, subtables, tables_of

IASL, ACPIEXEC = shutil.which("iasl"), shutil.which("acpiexec")
GOLDEN = Path(__file__).resolve().parents[2] / "data/acpi"
PACKAGE = "acpica-tools"
_MANY_CPUS = 16  # from here on the golden text only tells the structure


def iasl(folder: Path, *arguments: str) -> str:
    """What iasl says, run in `folder`."""
    done = subprocess.run(
        [str(IASL), *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def version() -> str:
    found = re.search(r"version (\d+)", iasl(Path(), "-v"))
    return found[1] if found else ""


def disassemble(name: str, table: bytes, folder: Path) -> tuple[str, str]:
    """The text of a table, and what iasl said about it."""
    (folder / f"{name}.dat").write_bytes(table)
    said = iasl(folder, "-d", f"{name}.dat")
    return (folder / f"{name}.dsl").read_text(encoding="utf-8"), said


def readable(text: str) -> str:
    """A disassembly without banner, raw bytes, checksums and columns of offsets."""
    text = re.sub(r"/\*.*?\*/\n", "", text, count=1, flags=re.DOTALL)
    text = text.partition("Raw Table Data")[0]
    lines = [re.sub(r"^\[\w+h \d+ +\d+\]", "", line).rstrip() for line in text.splitlines()]
    return "\n".join(line for line in lines if line and "Checksum :" not in line) + "\n"


def golden_text(machine: str) -> str:
    config = MACHINES[machine]
    tables = tables_of(config)
    if len(config.cpus) >= _MANY_CPUS:
        return structure(tables)
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            f"==== {name} ====\n{readable(disassemble(name, tables[name], Path(folder))[0])}"
            for name in sorted(tables)
            if name != "XSDT"
        ]
    return "\n".join(parts)


def structure(tables: dict[str, bytes]) -> str:
    """Counts and extremes, for tables nobody can read in full."""
    lines = [f"{name} {len(table)} bytes" for name, table in sorted(tables.items())]
    entries = subtables(tables["APIC"], 44)
    for kind in dict.fromkeys(kind for kind, _ in entries):
        same = [entry for other, entry in entries if other == kind]
        lines.append(f"APIC type {kind}: {len(same)}, first {same[0].hex()}, last {same[-1].hex()}")
    with tempfile.TemporaryDirectory() as folder:
        text, _ = disassemble("DSDT", tables["DSDT"], Path(folder))
    devices = re.findall(r"Device \((\w+)\)", text)
    lines.append(f"DSDT devices: {len(devices)}, last {devices[-1]}")
    lines.append(f"DSDT methods: {len(re.findall(r'Method', text))}")
    lines.append(f"DSDT notifications: {len(re.findall(r'Notify', text))}")
    return "\n".join(lines) + "\n"


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name in MACHINES:
        header = f"# iasl {version()}: python tests/x86/acpi/acpi_text.py\n"
        (GOLDEN / f"{name}.txt").write_text(header + golden_text(name), encoding="utf-8")


if __name__ == "__main__":
    main()
