"""`cpufw compare`: how one CPU stands to another, and what is responsible."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from cpufw.cli.completion import completes_models
from cpufw.cli.operands import WHAT, add_arch, add_format, read_operands
from cpufw.cli.output import print_json, print_table
from cpufw.cli.session import open_framework
from cpufw.command import Command

if TYPE_CHECKING:
    from cpufw.core.algebra import Comparison, Operand

_WORDS = {
    "identical": "is identical to",
    "superset": "is a superset of",
    "subset": "is a subset of",
    "incompatible": "is incompatible with",
}


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    completes_models(parser.add_argument("a", metavar="A", help=WHAT))
    completes_models(parser.add_argument("b", metavar="B", help="the same"))
    add_arch(parser)
    add_format(parser)


def run(options: Namespace) -> int:
    """Print the verdict, and every property that differs."""
    framework = open_framework(options)
    algebra, (a, b) = read_operands(framework, [options.a, options.b], options.arch)
    found = algebra.compare(a, b)
    if options.format == "json":
        print_json(
            {
                "a": a.name,
                "b": b.name,
                "result": found.relation.value,
                "responsible-properties": list(found.responsible),
                "only-a": list(found.only_a),
                "only-b": list(found.only_b),
                "values": {n: [a.identity.get(n), b.identity.get(n)] for n in found.values},
            }
        )
        return 0
    print(f"{a.name} {_WORDS[found.relation.value]} {b.name}")
    if found.responsible:
        print_table(("PROPERTY", a.name, b.name, "PLACE"), _rows(a, b, found))
    return 0


def _rows(a: Operand, b: Operand, found: Comparison) -> list[tuple[str, str, str, str]]:
    from cpufw.cli.expand import shown

    table = a.features.table

    def on_off(side: Operand, name: str) -> str:
        return "on" if name in side.features else "off"

    features = [
        (name, on_off(a, name), on_off(b, name), " ".join(table[name].places))
        for name in found.only_a | found.only_b
    ]
    values = []
    for name in found.values:
        # Rules may name parts of a value, such as a register's field.
        missing = "-" if name in {**a.identity, **b.identity} else "differs"
        left, right = (shown(name, each.identity.get(name, missing)) for each in (a, b))
        values.append((name, left, right, ""))
    return features + values


COMMAND = Command("compare", "compare two CPU models or hosts", configure, run)
