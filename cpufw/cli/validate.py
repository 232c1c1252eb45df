"""`cpufw validate`: check definitions before anybody relies on them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cpufw.cli.completion import completes_files
from cpufw.cli.output import print_json
from cpufw.command import Command
from cpufw.errors import CpufwError


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    completes_files(
        parser.add_argument(
            "paths",
            nargs="*",
            type=Path,
            metavar="PATH",
            help="files or folders of definitions (default: all that are in use)",
        )
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")


def run(options: Namespace) -> int:
    """Print every problem as FILE:LINE:COLUMN: MESSAGE; status 1 if there is one."""
    from cpufw.framework import Framework

    framework = Framework(options.cpudefs, options.strict_plugins, user=False)
    files, problems = framework.check(options.paths)
    if not files:
        raise CpufwError(f"no definition files (*.yaml) in {', '.join(map(str, options.paths))}")
    if options.format == "json":
        print_json(
            {
                "files": files,
                "problems": [
                    {"file": p.file, "line": p.line, "column": p.column, "message": p.message}
                    for p in problems
                ],
            }
        )
    else:
        for problem in problems:
            print(problem)
        count = len(problems)
        print(f"{files} file{_s(files)}, {count or 'no'} problem{_s(count)}")
    return 1 if problems else 0


def _s(count: int) -> str:
    return "" if count == 1 else "s"


COMMAND = Command("validate", "check definition files", configure, run)
