"""`cpufw export`: a CPU model in the words of others."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from cpufw.cli.completion import completes_models
from cpufw.cli.output import print_table, warn
from cpufw.cli.session import open_framework
from cpufw.command import Command
from cpufw.errors import ModelError, UsageError

if TYPE_CHECKING:
    from cpufw.formats.choice import Formats
    from cpufw.framework import Framework


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    completes_models(
        parser.add_argument(
            "model",
            metavar="MODEL",
            nargs="?",
            help="a model, also with properties: Haswell,+pcid,-avx",
        )
    )
    parser.add_argument("--to", metavar="FORMAT", help="the format, one of those --list shows")
    parser.add_argument("--arch", metavar="ARCH", help="the architecture, if several have it")
    parser.add_argument("--list", action="store_true", help="show which formats there are")
    parser.add_argument(
        "--strict", action="store_true", help="it is an error if the format cannot say everything"
    )


def run(options: Namespace) -> int:
    """Print the model in that format; what is lost is a warning."""
    framework = open_framework(options)
    formats = formats_of(framework)
    if options.list:
        list_formats(framework, formats)
        return 0
    if options.model is None or options.to is None:
        raise UsageError("expected MODEL --to FORMAT, or --list; see cpufw export --help")
    cpu = framework.cpu(options.model, options.arch)
    exported = formats.codec(options.to, cpu.model.arch).write(cpu, framework)
    if exported.lost:
        sentence = f"{options.to} cannot express {', '.join(exported.lost)}"
        if options.strict:
            raise ModelError(f"{options.model}: {sentence}")
        warn(f"{options.model}: {sentence}")
    print(exported.text, end="")
    return 0


def formats_of(framework: Framework) -> Formats:
    """The formats of the framework's plugins and cpufw's own."""
    from cpufw.formats.choice import Formats
    from cpufw.formats.format import Format

    return Formats(each for _, each in framework.plugins.collect("cpufw_formats", Format))


def list_formats(framework: Framework, formats: Formats) -> None:
    """Print each format with the architectures it is for."""
    rows: dict[tuple[str, str], list[str]] = {}
    for arch in framework.architectures:
        for each in formats.of(arch).values():
            rows.setdefault((each.name, each.description), []).append(arch)
    print_table(
        ("FORMAT", "ARCHITECTURES", "DESCRIPTION"),
        [(name, " ".join(archs), description) for (name, description), archs in rows.items()],
    )


COMMAND = Command("export", "write a CPU model in another format", configure, run)
