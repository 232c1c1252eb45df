"""`cpufw expand`: a model written out, static or in full."""

from __future__ import annotations

from cpufw.cli.completion import completes_models
from cpufw.cli.operands import add_arch, add_format
from cpufw.cli.output import is_hexadecimal, print_json, print_table
from cpufw.cli.session import open_framework
from cpufw.cli.show import require_static
from cpufw.command import Command

TYPE_CHECKING = False  # importing typing or argparse would cost start-up time
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from cpufw.core.features import FeatureTable


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    completes_models(
        parser.add_argument(
            "model", metavar="MODEL", help="a model, also with properties: Haswell,+pcid,-avx"
        )
    )
    parser.add_argument(
        "--type",
        choices=("static", "full"),
        default="static",
        help="static: a base model, which never changes, and what to set on it; full: every "
        "property (default: static)",
    )
    add_arch(parser)
    parser.add_argument(
        "--machine",
        "-M",
        default="none",
        metavar="TYPE",
        help="a machine type, for what it and its accelerator change (default: none)",
    )
    add_format(parser)


def run(options: Namespace) -> int:
    """Print the expansion; as JSON in the shape of QMP's query-cpu-model-expansion."""
    framework = open_framework(options)
    cpu = framework.cpu(options.model, options.arch)
    algebra = framework.algebra(cpu.model.arch)
    if options.machine == "none":
        require_static(cpu.model)
        expanded = algebra.expand(cpu, options.type)
    else:
        with framework.machine(options.machine, cpu=options.model, arch=options.arch) as machine:
            expanded = algebra.expand(cpu, options.type, machine)
    if options.format == "json":
        print_json(expanded.to_qmp())
        return 0
    print(f"{options.model} is {expanded.name} with" if expanded.props else expanded.name)
    if expanded.props:
        table = cpu.model.table
        print_table(
            ("PROPERTY", "VALUE", "PLACE"),
            [
                (name, shown(name, value), " ".join(places(table, name)))
                for name, value in expanded.props.items()
            ],
        )
    return 0


def places(table: FeatureTable, name: str) -> tuple[str, ...]:
    """Where the feature called `name` is; nothing for groups and for what is no feature."""
    return table[name].places if name in table and name not in table.groups else ()


def shown(name: str, value: Any) -> str:
    """A property's value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and is_hexadecimal(name):
        return f"{value:#x}"
    if isinstance(value, list | tuple | dict):
        return f"({len(value)} values)"
    return str(value)


class _Defaults:
    """The options of `cpufw expand MODEL`, as its parser would give them."""

    type, arch, machine, format = "static", None, "none", "table"
    cpudefs: tuple[str, ...] = ()
    strict_plugins = debug = False


COMMAND = Command("expand", "write a CPU model out in full", configure, run, _Defaults, ("model",))
