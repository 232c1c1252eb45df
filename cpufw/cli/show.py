"""`cpufw show`: one CPU model written out in full."""

from __future__ import annotations

from cpufw.cli.completion import completes_models
from cpufw.cli.output import is_hexadecimal, print_json
from cpufw.cli.session import open_framework
from cpufw.cli.yaml_text import Hexadecimal, yaml_text
from cpufw.command import Command
from cpufw.errors import ModelError

TYPE_CHECKING = False  # importing typing or argparse would cost start-up time
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Any

    from cpufw.core.model import CPUModel
    from cpufw.framework import Framework


# The accelerators that the machine type names; framework.py, which says so, is slow to import.
DEFAULT_ACCEL = "default"


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    completes_models(
        parser.add_argument(
            "model", metavar="MODEL", help="a model, also with properties: Haswell,+pcid,-avx"
        )
    )
    parser.add_argument("--arch", metavar="ARCH", help="the architecture, if several have it")
    parser.add_argument(
        "--machine",
        "-M",
        default="none",
        metavar="TYPE",
        help="a machine type, for what it changes: pc, q35, pc-q35-2.6, … (default: none)",
    )
    add_accel(parser)
    parser.add_argument("--format", choices=("yaml", "json"), default="yaml", help="default: yaml")


def run(options: Namespace) -> int:
    """Print the model's identity and features."""
    framework = open_framework(options)
    cpu = framework.cpu(options.model, options.arch)
    model = cpu.model
    if describes_only(framework, options):
        require_static(model, "--machine pc or --accel kvm")
    if options.machine == "none" and options.accel == DEFAULT_ACCEL:
        expansion = cpu.expand()
    else:
        with framework.machine(
            options.machine, cpu=options.model, accel=options.accel, arch=options.arch
        ) as machine:
            boot = machine.slots[0].cpu
            assert boot is not None
            assert boot.expansion is not None
            expansion = boot.expansion
    shown: dict[str, Any] = {
        "name": model.name,
        "type": cpu.type_name,
        "arch": model.arch,
        "alias-of": expansion.model.alias_of,
        "description": model.description,
        "source": model.source,
        "deprecated": model.deprecated or None,
        **expansion.identity,
        "features": list(expansion.features),
        "with": {trigger: list(names) for trigger, names in model.companions.items()},
        "dropped": list(expansion.dropped),
    }
    if model.dynamic:
        shown["dynamic"] = True
    # Nothing and zero go without saying; what is off does not.
    shown = {key: value for key, value in shown.items() if value is False or value}
    if options.format == "json":
        print_json(shown)
        return 0
    for key, value in shown.items():
        if is_hexadecimal(key) and type(value) is int:  # a bool is no number here
            shown[key] = Hexadecimal(value)
        elif key in expansion.identity and isinstance(value, dict):  # registers by name
            shown[key] = {name: Hexadecimal(number) for name, number in value.items()}
    print(yaml_text(shown))
    return 0


def add_accel(parser: ArgumentParser) -> None:
    """Add the option that has an accelerator asked."""
    parser.add_argument(
        "--accel",
        default=DEFAULT_ACCEL,
        metavar="NAME[:NAME]",
        help="an accelerator, for what it changes: kvm (default: the machine type's)",
    )


def describes_only(framework: Framework, options: Namespace) -> bool:
    """Whether no accelerator takes part: neither the machine type nor the user names one."""
    if options.accel != DEFAULT_ACCEL:
        return False
    return options.machine == "none" or framework.machine_type(options.machine).accel is None


def require_static(model: CPUModel, instead: str = "--machine pc") -> None:
    """Raise `ModelError` if there is nothing to say of `model` without an accelerator.

    `instead` are the options that name one.
    """
    if model.dynamic:
        raise ModelError(
            f"CPU model '{model.name}' is what the host's accelerator gives: add {instead}"
        )


class _Defaults:
    """The options of `cpufw show MODEL`, as its parser would give them."""

    arch, machine, accel, format = None, "none", DEFAULT_ACCEL, "yaml"
    cpudefs: tuple[str, ...] = ()
    strict_plugins = debug = False


COMMAND = Command("show", "show a CPU model in full", configure, run, _Defaults, ("model",))
