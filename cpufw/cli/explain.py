"""`cpufw explain`: why a model cannot run on a host, and what can."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cpufw.cli.completion import completes_files, completes_models
from cpufw.cli.operands import add_arch, add_format, common_arch, load_captures
from cpufw.cli.output import print_json, print_table
from cpufw.cli.session import open_framework
from cpufw.command import Command

if TYPE_CHECKING:
    from cpufw.core.accel import Accelerator
    from cpufw.fleet.explain import Explanation


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    completes_models(
        parser.add_argument(
            "model", metavar="MODEL", help="a model, also with properties: Haswell,+pcid,-avx"
        )
    )
    completes_files(
        parser.add_argument(
            "--on",
            nargs="+",
            default=[],
            metavar="CAPTURE",
            help="captured hosts that are to run it (default: this host)",
        )
    )
    add_arch(parser)
    add_format(parser)


def run(options: Namespace) -> int:
    """Print whether it runs, what it lacks, and what does run."""
    from cpufw.fleet.explain import explain
    from cpufw.fleet.facts import explanation_facts

    framework = open_framework(options)
    captures = load_captures(framework, options.on) if options.on else []
    arch = common_arch(framework, [options.model], captures, options.arch)
    with ExitStack() as opened:
        hosts: list[Accelerator] = [*captures]
        if not hosts:
            hosts.append(framework.accelerator_of(arch))
            opened.callback(hosts[0].close)
        found = explain(framework.algebra(arch), options.model, hosts)
    if options.format == "json":
        print_json(explanation_facts(found))
    else:
        _print(found)
    return 0


def _print(found: Explanation) -> None:
    print(found.sentence())
    if found.missing:
        print()
        print_table(
            ("MISSING", "PLACE", "REQUIRED BY", "LACKING ON"),
            [
                (
                    each.name,
                    " ".join(each.places),
                    ", ".join(each.required_by) or "-",
                    ", ".join(f"{h} (unknown)" if h in each.unknown_on else h for h in each.hosts),
                )
                for each in found.missing
            ],
        )
    for heading, rows in (("ASKS MORE THAN", found.demands), ("DIFFERS FROM", found.differs)):
        if rows:
            print()
            print_table((heading, "IN"), [(host, ", ".join(names)) for host, names in rows])
    if found.gains:
        print()
        print_table(
            ("WITHOUT", "IT HAS ALSO"), [(host, ", ".join(gain)) for host, gain in found.gains]
        )


COMMAND = Command("explain", "say why a CPU model cannot run on a host", configure, run)
