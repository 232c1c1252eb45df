"""`cpufw migrate-check`: whether guests can go from one captured host to others."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from cpufw.cli.completion import completes_files
from cpufw.cli.output import print_json, print_table
from cpufw.cli.session import open_framework
from cpufw.command import Command

if TYPE_CHECKING:
    from cpufw.fleet.migrate import MigrationCheck

CANNOT = 1
"""Exit status when some guest cannot go somewhere, or the captures do not tell."""


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    completes_files(
        parser.add_argument(
            "--from",
            dest="source",
            required=True,
            type=Path,
            metavar="CAPTURE",
            help="the host that the guest runs on: a file of cpufw host --capture, or a dump",
        )
    )
    completes_files(
        parser.add_argument(
            "--to",
            dest="targets",
            required=True,
            type=Path,
            nargs="+",
            action="extend",
            metavar="CAPTURE",
            help="the hosts that it may go to",
        )
    )
    parser.add_argument(
        "--cpu",
        dest="cpus",
        required=True,
        action="append",
        metavar="MODEL",
        help="the guest's CPU: Haswell,+pcid,-avx; can be given several times",
    )
    parser.add_argument(
        "--format", choices=("table", "json"), default="table", help="default: table"
    )
    parser.epilog = "exit status: 0 every guest can go everywhere, 1 some cannot, or it is unknown"


def run(options: Namespace) -> int:
    """Print a line a guest and target, and why not."""
    from cpufw.fleet.capture import load_capture
    from cpufw.fleet.migrate import Verdict, check_migrations

    framework = open_framework(options)
    source = load_capture(options.source, framework)
    targets = [load_capture(path, framework) for path in options.targets]
    checks = check_migrations(framework, options.cpus, source, targets)
    if options.format == "json":
        _print_json(checks)
    else:
        _print_table(checks)
    return 0 if all(check.verdict is Verdict.YES for check in checks) else CANNOT


def _print_json(checks: list[MigrationCheck]) -> None:
    print_json(
        [
            {
                "cpu": check.cpu,
                "from": check.source,
                "to": check.target,
                "verdict": check.verdict.value,
                "findings": [
                    {
                        "aspect": each.aspect,
                        "subject": each.subject,
                        "place": each.place,
                        "verdict": each.verdict.value,
                        "reason": each.reason,
                    }
                    for each in check.findings
                ],
            }
            for check in checks
        ]
    )


def _print_table(checks: list[MigrationCheck]) -> None:
    rows = [
        (check.cpu, check.source, check.target, check.verdict.value, _blockers(check))
        for check in checks
    ]
    print_table(("CPU", "FROM", "TO", "CAN GO", "BECAUSE OF"), rows)
    for check in checks:
        if not check.findings:
            continue
        print(f"\n{check.cpu}, {check.source} to {check.target}:")
        for each in check.findings:
            said = {"yes": "note"}.get(each.verdict.value, each.verdict.value)
            where = f" ({each.place})" if each.place else ""
            print(f"  {said:<7}  {each.aspect:<8}  {each.subject}{where}: {each.reason}")


def _blockers(check: MigrationCheck) -> str:
    from cpufw.fleet.migrate import Verdict

    return ", ".join(each.subject for each in check.findings if each.verdict is not Verdict.YES)


COMMAND = Command("migrate-check", "tell whether guests can move between hosts", configure, run)
