"""`cpufw baseline`: the richest CPU that every one of several hosts or models can run."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from cpufw.cli.completion import completes_models
from cpufw.cli.operands import WHAT, add_arch, add_format, read_operands
from cpufw.cli.output import print_json, print_table
from cpufw.cli.session import open_framework
from cpufw.command import Command

if TYPE_CHECKING:
    from cpufw.core.features import FeatureSet


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    completes_models(parser.add_argument("operand", nargs="+", metavar="CPU", help=WHAT))
    add_arch(parser)
    add_format(parser)


def run(options: Namespace) -> int:
    """Print the baseline, and who keeps what out of it."""
    from cpufw.cli.expand import shown
    from cpufw.fleet.baseline import baseline
    from cpufw.fleet.blockers import blockers

    framework = open_framework(options)
    algebra, operands = read_operands(framework, options.operand, options.arch)
    found = baseline(algebra, operands)
    blocked = blockers(operands)
    named = found.named
    if options.format == "json":
        print_json(
            {
                "of": [operand.name for operand in operands],
                "identity": dict(found.cpu.identity),
                "features": list(found.cpu.features),
                "static": found.static.to_qmp()["model"] if found.static is not None else None,
                "named": {
                    "cpu": str(named),
                    "model": named.name,
                    "adds": list(named.adds),
                    "drops": list(named.drops),
                }
                if named is not None
                else None,
                "lacking": {name: list(hosts) for name, hosts in blocked.lacking.items()},
                "gains": {name: list(gain) for name, gain in blocked.gains},
            }
        )
        return 0
    for name, value in found.cpu.identity.items():
        print(f"{name:<14} {shown(name, value)}")
    _print_names(f"{'features':<14} {len(found.cpu.features)}: ", found.cpu.features)
    if named is not None:
        print(f"{'nearest':<14} {named.name}")
        _print_names("  adds         ", named.adds)
        _print_names("  drops        ", named.drops)
    if blocked.lacking:
        print()
        print_table(
            ("NOT IN IT", "LACKING ON"),
            [(name, ", ".join(hosts)) for name, hosts in blocked.lacking.items()],
        )
    if blocked.gains:
        print()
        print_table(
            ("WITHOUT", "IT HAS ALSO"), [(name, ", ".join(gain)) for name, gain in blocked.gains]
        )
    return 0


def _print_names(heading: str, names: FeatureSet) -> None:
    import textwrap

    text = heading + (" ".join(names) or "nothing")
    print(textwrap.fill(text, 96, subsequent_indent=" " * 15, break_on_hyphens=False))


COMMAND = Command("baseline", "find what several hosts or models can all run", configure, run)
