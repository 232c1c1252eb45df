"""Figures of whole processes: `list-models`, `show`, `import cpufw`, compiling the definitions."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, Row, Skipped, Target, milliseconds

_QEMU = "qemu-system-x86_64"
_MIB = 1024  # KiB

# Whole folders, without looking for an index: what the first start after an edit has to do.
_COMPILE = """
from pathlib import Path
import cpufw_cpudefs
from cpufw.definitions.compile import compile_folder
from cpufw.definitions.store import schema_folders
for root in cpufw_cpudefs.__path__:
    for folder in sorted(Path(root).iterdir()):
        if (folder / "features.yaml").exists():
            compile_folder(folder, schema_folders(folder))
"""


class CommandTimer:
    """Runs commands through `run_command`, with a cache folder of their own."""

    def __init__(self, run_command: Path, cache: Path) -> None:
        self._run_command = run_command
        self._environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}

    def run(self, command: Sequence[str | Path]) -> tuple[float, float]:
        """Wall time in ms and peak resident set in MiB.

        Raises `RuntimeError` if the command fails.
        """
        done = subprocess.run(
            [self._run_command, *command],
            capture_output=True,
            text=True,
            env=self._environment,
            cwd="/",  # away from the source tree: the installed cpufw is meant
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))} failed: {done.stderr.strip()}")
        wall, resident = map(int, done.stdout.split())
        return milliseconds(wall), resident / _MIB


def list_models(timer: CommandTimer, python: Path, runs: int) -> list[Row]:
    """`cpufw list-models` with a warm index against QEMU's `-cpu help`."""
    qemu = shutil.which(_QEMU)
    command: list[str | Path] = [python.with_name("cpufw"), "list-models"]
    timer.run(command)  # warms the index, and the pages of both
    ours, theirs, sizes = [], [], []
    for _ in range(runs):
        wall, size = timer.run(command)
        ours.append(wall)
        sizes.append(size)
        if qemu:
            theirs.append(timer.run([qemu, "-cpu", "help"])[0])
    return [
        Figure(
            "cpufw list-models, whole process",
            "ms",
            median(ours),
            Target(most=1),
            runs,
            f"{_QEMU} -cpu help",
            median(theirs) if theirs else None,
        ),
        Figure(
            "cpufw list-models, peak resident set",
            "MiB",
            max(sizes),
            Target(most=25, of_ratio=False),
            runs,
        ),
    ]


def show(timer: CommandTimer, python: Path, runs: int) -> list[Row]:
    """One model resolved, above `cpufw list-models`: the median of the differences of pairs."""
    cpufw = python.with_name("cpufw")
    rows: list[Row] = []
    for command in ("show", "expand", "cpuid"):
        resolve: list[str | Path] = [cpufw, command, "Haswell-v4"]
        timer.run(resolve)
        differences, listing = [], []
        for _ in range(runs):
            whole, _ = timer.run(resolve)
            bare, _ = timer.run([cpufw, "list-models"])
            differences.append(whole - bare)
            listing.append(bare)
        rows.append(
            Figure(
                f"cpufw {command} MODEL, above cpufw list-models",
                "ms",
                median(differences),
                Target(most=10, of_ratio=False),
                runs,
                "cpufw list-models",
                median(listing),
            )
        )
    return rows


def import_time(timer: CommandTimer, python: Path, runs: int) -> list[Row]:
    """`import cpufw` above starting Python: the median of the differences of pairs."""
    differences, bare = [], []
    for _ in range(runs):
        with_cpufw, _ = timer.run([python, "-c", "import cpufw"])
        without, _ = timer.run([python, "-c", "pass"])
        differences.append(with_cpufw - without)
        bare.append(without)
    return [
        Figure(
            "import cpufw, above starting Python",
            "ms",
            median(differences),
            Target(most=15, of_ratio=False),
            runs,
            "python -c pass",
            median(bare),
        )
    ]


def compile_definitions(timer: CommandTimer, python: Path, runs: int) -> list[Row]:
    """Every YAML definition read, checked and compiled in a fresh process."""
    seconds = [timer.run([python, "-c", _COMPILE])[0] / 1000 for _ in range(runs)]
    return [
        Figure(
            "compile all definitions from cold",
            "s",
            median(seconds),
            Target(most=5, of_ratio=False),
            runs,
        )
    ]


def command_figures(timer: CommandTimer, python: Path, scale: float) -> list[Row]:
    """All of the above; `scale` multiplies the number of runs."""
    rows: list[Row] = []
    measures = ((list_models, 30), (show, 20), (import_time, 60), (compile_definitions, 5))
    for measure, runs in measures:
        try:
            rows += measure(timer, python, max(3, round(runs * scale)))
        except RuntimeError as error:
            rows.append(Skipped(measure.__name__.replace("_", " "), str(error)))
    return rows
