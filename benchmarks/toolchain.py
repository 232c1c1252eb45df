"""Builds what the benchmark needs in a scratch folder: guests, C programs, an installed cpufw."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

WRITTEN_PORT = 0x90
"""The port that the guest port_writes writes."""
READY_PORT, AP_PORT = 0x90, 0x91
"""The ports that the guest hotplug writes: when it listens, and first on each new CPU."""

_IGNORED = shutil.ignore_patterns(
    ".*", "build", "dist", "*.egg-info", "__pycache__", "*.so", "*.o", "*.index"
)


class BuildError(Exception):
    """A tool is missing or failed; the message holds its own words."""


def build_program(name: str, folder: Path) -> Path:
    """The C program `reference/<name>.c`, compiled. Raises `BuildError`."""
    program = folder / name
    sources = [HERE / "reference" / source for source in (f"{name}.c", "vm.c")]
    ports = [f"-DREADY_PORT={READY_PORT}", f"-DAP_PORT={AP_PORT}"]
    _run(["gcc", "-O2", "-Wall", "-Wextra", "-pthread", *ports, "-o", program, *sources])
    return program


def build_guest(name: str, folder: Path) -> Path:
    """The flat image of `guests/<name>.S`. Raises `BuildError`."""
    linked, image = folder / f"{name}.o", folder / f"{name}.bin"
    ports = {"PORT": WRITTEN_PORT, "READY_PORT": READY_PORT, "AP_PORT": AP_PORT}
    defines = [f"--defsym={symbol}={port}" for symbol, port in ports.items()]
    _run(["as", "--32", *defines, "-o", linked, HERE / "guests" / f"{name}.S"])
    flat = ["-m", "elf_i386", "-Ttext=0", "-e", "0", "--oformat=binary"]
    _run(["ld", *flat, "-o", image, linked])
    return image


def install_cpufw(folder: Path) -> Path:
    """The `python` of a fresh virtual environment with this tree's wheel in it.

    Raises `BuildError`, also where there is no network to fetch what cpufw needs.
    """
    source, environment = folder / "source", folder / "venv"
    shutil.copytree(ROOT, source, ignore=_IGNORED)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source])
    (wheel,) = folder.glob("cpufw-*.whl")
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    _run([*pip, f"--python={python}", "install", wheel])
    return python


def _run(command: Sequence[str | Path]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{Path(command[0]).name} failed: {error.stderr.strip()}") from None
