"""`cpufw import`: the CPU that somebody else's text describes."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from cpufw.cli.export import formats_of
from cpufw.cli.output import print_json, warn
from cpufw.cli.session import open_framework
from cpufw.command import Command
from cpufw.errors import CpufwError, NotFoundError


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("file", metavar="FILE", help="the text; - is standard input")
    parser.add_argument(
        "--from",
        dest="format_name",
        metavar="FORMAT",
        help="its format, one of those cpufw export --list shows (default: what it looks like)",
    )
    parser.add_argument(
        "--arch", metavar="ARCH", help="the architecture (default: one that has it)"
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="of the answer (default: text)"
    )
    parser.add_argument(
        "--strict", action="store_true", help="it is an error if something is left out"
    )


def run(options: Namespace) -> int:
    """Print the CPU as `--cpu` takes it; what was left out is a warning."""
    from cpufw.formats.requests import request_text

    framework = open_framework(options)
    if options.arch is not None and options.arch not in framework.architectures:
        raise NotFoundError("architecture", options.arch, framework.architectures)
    native = os.uname().machine
    archs = sorted(framework.architectures, key=lambda known: known != native)
    archs = [options.arch] if options.arch else archs
    name = "standard input" if options.file == "-" else options.file
    text = _read(options.file)
    try:
        reading = formats_of(framework).read(text, framework, archs, options.format_name)
    except CpufwError as error:
        raise CpufwError(f"{name}: {error}") from error
    imported = reading.imported
    for note in imported.notes:
        if options.strict:
            raise CpufwError(f"{name}: {note}")
        warn(f"{name}: {note}")
    if options.format == "json":
        print_json(
            {
                "cpu": request_text(imported.request),
                "arch": reading.arch,
                "format": reading.format,
                "model": imported.request.model,
                "on": list(imported.request.plus),
                "off": list(imported.request.minus),
                "properties": dict(imported.request.properties),
                "notes": list(imported.notes),
            }
        )
    else:
        print(request_text(imported.request))
    return 0


def _read(name: str) -> str:
    """The text of a file, no more of it than a CPU can need. Raises `CpufwError`."""
    from cpufw.formats.text import MAX_CHARACTERS

    limit = MAX_CHARACTERS + 1
    if name == "-":
        data = sys.stdin.buffer.read(limit)
    else:
        with Path(name).open("rb") as file:
            data = file.read(limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = "standard input" if name == "-" else name
        raise CpufwError(f"{where}: byte {error.start} is not UTF-8: this is no text") from None


COMMAND = Command("import", "read a CPU from another format", configure, run)
