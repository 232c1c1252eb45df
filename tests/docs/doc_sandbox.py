"""Where a document's examples run: a folder of their own, with the files the document shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from doc_blocks import Block, blocks

TIME_LIMIT = 100  # seconds for one block; the slowest host emulates an AMD-V one
_END = "\x1e"


@dataclass(frozen=True)
class Command:
    """A command line of a console block, and the output shown below it."""

    line: str
    shown: list[str]


@dataclass(frozen=True)
class PythonResult:
    """What a Python block printed; `error` is its traceback, empty if it ended well."""

    line: int
    printed: list[str]
    error: str


def commands(block: Block) -> list[Command]:
    """The command lines of a console block: they begin with `$ `."""
    found: list[Command] = []
    for line in block.lines:
        if line.startswith("$ "):
            found.append(Command(line[2:], []))
        else:
            assert found, f"{block.id}: a console block begins with a command"
            found[-1].shown.append(line)
    return found


def run_console(block: Block, folder: Path) -> list[list[str]]:
    """What each command of the block prints, on both of its outputs; all run in one shell."""
    script = "".join(
        f"{command.line}\n_status=$?; printf '{_END}'; (exit $_status)\n"
        for command in commands(block)
    )
    printed = _run(["sh", "-c", script], block, folder, "", subprocess.STDOUT)
    *outputs, rest = printed.split(_END)
    assert not rest, f"{block.id}: the shell said {rest}"
    return [[line.rstrip() for line in output.splitlines()] for output in outputs]


def run_python(path: Path, kvm: bool, folder: Path) -> list[PythonResult]:
    """Run a document's Python blocks in order, in one process and namespace.

    Without `kvm` those that need KVM are left out.
    """
    every = blocks(path)
    chosen = [block for block in every if _runs(block) and (kvm or "kvm" not in block.directives)]
    if not chosen:
        return []
    runner = str(Path(__file__).with_name("run_blocks.py"))
    given = json.dumps([[block.line, block.text] for block in chosen])
    printed = _run([sys.executable, "-W", "error", runner], every[-1], folder, given, None)
    return [
        PythonResult(line, [each.rstrip() for each in lines], error)
        for line, lines, error in json.loads(printed)
    ]


def _run(program: list[str], block: Block, folder: Path, given: str, stderr: int | None) -> str:
    """What `program` prints; whatever it started has ended then."""
    with subprocess.Popen(
        program,
        cwd=folder,
        env=_environment(block, folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(given, TIME_LIMIT)[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def _runs(block: Block) -> bool:
    return block.language == "python" and "file" not in block.directives


def _environment(block: Block, folder: Path) -> dict[str, str]:
    """Write the files that the document shows up to `block`, and install what it installs."""
    programs, site = folder / ".bin", folder / ".site"
    programs.mkdir(exist_ok=True)
    site.mkdir(exist_ok=True)
    program = programs / "cpufw"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cpufw "$@"\n')
    program.chmod(0o755)
    if "guests" in block.directives:
        for guest in Path(os.environ["CPUFW_GUESTS"]).iterdir():
            (folder / guest.name).symlink_to(guest)
    python_path = [str(site)]
    for each in blocks(block.path):
        if each.line > block.line:
            break
        if "file" in each.directives:
            target = folder / each.directives["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(each.text, encoding="utf-8")
        if "install" in each.directives:
            python_path.append(str(_install(folder / each.directives["install"], site)))
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": ":".join(python_path),
        "PYTHONUNBUFFERED": "1",  # both outputs in the order in which a terminal shows them
        "PYTHONUTF8": "1",
        "COLUMNS": "80",
        "NO_COLOR": "1",
    }


def _install(project: Path, site: Path) -> Path:
    """Write what `pip install` would tell Python of a project; returns where its modules are."""
    table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / f"{table['name']}-{table['version']}.dist-info"
    info.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {table['name']}\nVersion: {table['version']}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
        for group, names in table["entry-points"].items()
    )
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    return project
