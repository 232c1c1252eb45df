"""`cpufw show`: one CPU model written out in full."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from io import StringIO
from typing import TYPE_CHECKING, Any

from cpufw.cli.completion import completes_models
from cpufw.cli.output import print_json
from cpufw.cli.session import open_framework
from cpufw.command import Command
from cpufw.errors import ModelError

if TYPE_CHECKING:
    from cpufw.core.model import CPUModel


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
        help="a machine type, for what it and its accelerator change (default: none)",
    )
    parser.add_argument("--format", choices=("yaml", "json"), default="yaml", help="default: yaml")


def run(options: Namespace) -> int:
    """Print the model's identity and features."""
    framework = open_framework(options)
    cpu = framework.cpu(options.model, options.arch)
    model = cpu.model
    if options.machine == "none":
        require_static(model)
        expansion = cpu.expand()
    else:
        with framework.machine(options.machine, cpu=options.model, arch=options.arch) as machine:
            boot = machine.slots[0].cpu
            assert boot is not None
            assert boot.expansion is not None
            expansion = boot.expansion
    shown: dict[str, Any] = {
        "name": model.name,
        "type": cpu.type_name,
        "arch": model.arch,
        "alias-of": model.alias_of,
        "description": model.description,
        "source": model.source,
        "deprecated": model.deprecated,
        **expansion.identity,
        "features": list(expansion.features),
        "with": {trigger: list(names) for trigger, names in model.companions.items()},
        "dropped": list(expansion.dropped),
    }
    if model.dynamic:
        shown["dynamic"] = True
    shown = {key: value for key, value in shown.items() if value not in (None, "", False, [], {})}
    if options.format == "json":
        print_json(shown)
        return 0
    from ruamel.yaml import YAML
    from ruamel.yaml.scalarint import HexInt

    yaml = YAML()
    yaml.width = 100
    for key in ("features", "dropped"):
        if key in shown:
            shown[key] = _flow(shown[key])
    for key in ("level", "xlevel", "xlevel2"):
        if key in shown:
            shown[key] = HexInt(shown[key])
    shown["with"] = {key: _flow(names) for key, names in shown.get("with", {}).items()}
    if not shown["with"]:
        del shown["with"]
    text = StringIO()
    yaml.dump(shown, text)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()))
    return 0


def require_static(model: CPUModel) -> None:
    """Raise `ModelError` if there is nothing to say of `model` without an accelerator."""
    if model.dynamic:
        raise ModelError(
            f"CPU model '{model.name}' is what the host's accelerator gives: add --machine pc"
        )


def _flow(names: list[str]) -> Any:
    from ruamel.yaml.comments import CommentedSeq

    sequence = CommentedSeq(names)
    sequence.fa.set_flow_style()
    return sequence


COMMAND = Command("show", "show a CPU model in full", configure, run)
