"""`cpufw plugins`: what was found, and what is wrong with it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from cpufw.cli.output import print_json, print_table
from cpufw.command import Command


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--format", choices=("table", "json"), default="table", help="default: table"
    )


def run(options: Namespace) -> int:
    """Print one row a plugin; broken ones show their reason."""
    from cpufw.framework import Framework

    framework = Framework(options.cpudefs, options.strict_plugins)
    plugins = framework.plugins.plugins
    if options.format == "json":
        print_json(
            [
                {
                    "name": plugin.name,
                    "distribution": plugin.distribution,
                    "version": plugin.version,
                    "hooks": list(plugin.hooks),
                    "error": plugin.error,
                }
                for plugin in plugins
            ]
        )
    else:
        print_table(
            ("NAME", "DISTRIBUTION", "VERSION", "HOOKS"),
            [
                (
                    plugin.name,
                    plugin.distribution,
                    plugin.version,
                    f"not in use: {plugin.error}" if plugin.error else ", ".join(plugin.hooks),
                )
                for plugin in plugins
            ],
        )
    return 0


COMMAND = Command("plugins", "list plugins and their hooks", configure, run)
