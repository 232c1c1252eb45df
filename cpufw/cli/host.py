"""`cpufw host`: what this host can give its guests."""

from __future__ import annotations

import platform
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from cpufw.cli.completion import completes_files
from cpufw.cli.output import is_hexadecimal, print_json
from cpufw.cli.session import open_framework
from cpufw.command import Command
from cpufw.errors import AcceleratorError

if TYPE_CHECKING:
    from cpufw.framework import Framework


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--arch", metavar="ARCH", help="guests of this architecture (default: this host's)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    completes_files(
        parser.add_argument(
            "--capture",
            metavar="FILE",
            help="write all that can be known of this host to FILE instead, - for standard output",
        )
    )


def run(options: Namespace) -> int:
    """Print the accelerator's features and the model that fits best."""
    framework = open_framework(options)
    arch = options.arch or platform.machine()
    if options.capture:
        return _capture(framework, arch, options.capture)
    catalogue = framework.catalogue(arch)
    accelerator = framework.accelerator_of(arch)
    try:
        features = accelerator.supported_features(catalogue.table)
        identity = dict(accelerator.host_identity())
        best = framework.best_model(arch, accelerator)
        capabilities = {name: value for name, value in accelerator.capabilities().items() if value}
    finally:
        accelerator.close()
    if best is None:
        raise AcceleratorError(f"no {arch} model runs here with all its features")
    if options.format == "json":
        print_json(
            {
                "accelerator": accelerator.name,
                "arch": arch,
                "identity": identity,
                "best-model": best.name,
                "features": list(features),
                "capabilities": capabilities,
            }
        )
        return 0
    print(f"accelerator  {accelerator.name}, {arch}")
    for name, value in identity.items():
        if value != "":
            print(f"{name:<12} {value:#x}" if is_hexadecimal(name) else f"{name:<12} {value}")
    print(f"best model   {best.name} ({best.description})")
    print(f"features     {len(features)}")
    _print_wrapped(list(features))
    return 0


def _capture(framework: Framework, arch: str, target: str) -> int:
    from cpufw.fleet.capture import capture_host, write_capture
    from cpufw.fleet.capture_file import dump

    text = dump(capture_host(framework, arch), framework.catalogue(arch).table)
    if target == "-":
        print(text, end="")
    else:
        write_capture(Path(target), text)
    return 0


def _print_wrapped(names: list[str]) -> None:
    import textwrap

    for line in textwrap.wrap(" ".join(names), 90, break_on_hyphens=False):
        print(f"  {line}")


COMMAND = Command("host", "show what this host's accelerator can give", configure, run)
