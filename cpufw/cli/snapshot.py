"""`cpufw snapshot`: guests in files."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from pathlib import Path

from cpufw.cli.completion import completes_files
from cpufw.cli.output import print_json
from cpufw.command import Command

_EPILOG = """\
examples:
  cpufw snapshot save --after 5 guest.snap --cpu Haswell --memory 64M guest.elf
  cpufw snapshot info guest.snap
  cpufw snapshot load guest.snap --timeout 10
"""


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = _EPILOG
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = actions.add_parser("info", help="check a file in full and tell what is in it")
    completes_files(info.add_argument("file", type=Path, metavar="FILE"))
    info.add_argument("--format", choices=("text", "json"), default="text")
    save = actions.add_parser("save", help="run a guest for a while, then save it")
    completes_files(save.add_argument("file", metavar="FILE"))
    save.add_argument("--after", required=True, metavar="SECONDS", help="how long to run it before")
    load = actions.add_parser("load", help="go on with a guest")
    completes_files(load.add_argument("file", metavar="FILE"))
    for action in (save, load):
        action.add_argument(
            "rest", nargs=argparse.REMAINDER, metavar="…", help="options of cpufw run"
        )


def run(options: Namespace) -> int:
    """Do what is asked; returns the exit status."""
    if options.action == "info":
        return _info(options)
    from cpufw.cli import run as run_command
    from cpufw.cli.parser import command_parser

    if options.action == "save":
        arguments = ["--timeout", options.after, "--save", options.file, *options.rest]
    else:
        arguments = ["--load", options.file, *options.rest]
    given = command_parser(run_command.COMMAND).parse_args(arguments)
    given.cpudefs = given.cpudefs or options.cpudefs
    given.strict_plugins |= options.strict_plugins
    return run_command.run(given)


def _info(options: Namespace) -> int:
    from cpufw.snapshot.snapshot import check

    saved, sizes = check(options.file)
    missing = [name for name in saved.requested if name not in saved.granted]
    plugged = [f"{cpu.slot} ({cpu.id})" if cpu.id else str(cpu.slot) for cpu in saved.cpus]
    facts = {
        "saved-by": f"cpufw {saved.cpufw}",
        "machine": saved.machine,
        "cpu": saved.resolved,
        "smp": saved.smp,
        "memory": saved.board.get("memory"),
        "plugged": plugged,
        "not-granted": missing,
        "bytes": sizes,
    }
    if options.format == "json":
        print_json({**facts, "features": list(saved.granted)})
        return 0
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{part} {size}" for part, size in value.items())
        elif isinstance(value, list):
            value = ", ".join(value) or "none"
        print(f"{name + ':':<14}{value}")
    return 0


COMMAND = Command("snapshot", "save a guest to a file, load it, look at it", configure, run)
