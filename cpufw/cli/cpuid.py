"""`cpufw cpuid`: what the CPUID instruction answers on a CPU of a model."""

from __future__ import annotations

from cpufw.cli.completion import completes_models
from cpufw.cli.output import print_json, print_table
from cpufw.cli.session import open_framework
from cpufw.cli.show import DEFAULT_ACCEL, add_accel, describes_only, require_static
from cpufw.command import Command
from cpufw.errors import CpufwError

TYPE_CHECKING = False  # importing typing or argparse would cost start-up time
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    completes_models(
        parser.add_argument(
            "model", metavar="MODEL", help="a model, also with properties: Haswell,+pcid,-avx"
        )
    )
    parser.add_argument(
        "--smp", default="1", metavar="SMP", help="the topology, as in cpufw run (default: 1)"
    )
    parser.add_argument(
        "--slot", type=int, default=0, metavar="N", help="the CPU's slot (default: 0)"
    )
    parser.add_argument(
        "--machine",
        "-M",
        default="none",
        metavar="TYPE",
        help="a machine type, for what it changes: pc, q35, pc-q35-2.6, … (default: none)",
    )
    add_accel(parser)
    parser.add_argument(
        "--format",
        choices=("table", "raw", "json"),
        default="table",
        help="raw is what `cpuid -r` prints and `cpuid -f` reads (default: table)",
    )


def run(options: Namespace) -> int:
    """Print the leaves."""
    framework = open_framework(options)
    if describes_only(framework, options):
        require_static(framework.cpu(options.model).model, "--machine pc or --accel kvm")
    with framework.machine(
        options.machine, cpu=options.model, smp=options.smp, accel=options.accel
    ) as machine:
        if not 0 <= options.slot < len(machine.slots):
            raise CpufwError(
                f"slot {options.slot} is out of range, expected 0 to {len(machine.slots) - 1}"
            )
        slot = machine.slots[options.slot]
        if slot.cpu is None:
            machine.device_add(
                machine.cpu_class.type_name,
                **{name.replace("-", "_"): index for name, index in slot.id.props().items()},
            )
        table: Any = getattr(slot.cpu, "cpuid", None)
        if table is None:
            raise CpufwError(f"{machine.cpu_class.type_name} has no CPUID: it is not an x86 CPU")
        if options.format == "raw":
            print(table.to_raw(), end="")
        elif options.format == "json":
            print_json(
                [
                    {"function": leaf.function, "index": leaf.index}
                    | dict(zip(("eax", "ebx", "ecx", "edx"), leaf.registers, strict=True))
                    for leaf in table.values()
                ]
            )
        else:
            print_table(
                ("LEAF", "SUBLEAF", "EAX", "EBX", "ECX", "EDX"),
                [
                    (
                        f"{leaf.function:08x}",
                        f"{leaf.index:x}",
                        *(f"{register:08x}" for register in leaf.registers),
                    )
                    for leaf in table.values()
                ],
            )
    return 0


class _Defaults:
    """The options of `cpufw cpuid MODEL`, as its parser would give them."""

    smp, slot, machine, accel, format = "1", 0, "none", DEFAULT_ACCEL, "table"
    cpudefs: tuple[str, ...] = ()
    strict_plugins = debug = False


COMMAND = Command(
    "cpuid", "show what CPUID answers on a CPU", configure, run, _Defaults, ("model",)
)
