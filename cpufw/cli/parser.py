"""The command line's grammar, for every command line that is more than a command's name."""

from __future__ import annotations

import os
from argparse import ArgumentParser, HelpFormatter, RawDescriptionHelpFormatter
from typing import NoReturn

from cpufw.cli import COMMANDS, builtin
from cpufw.command import Command
from cpufw.errors import UsageError
from cpufw.version import __version__

_HELP_COLUMN = 28  # where the options' explanations begin


class _Parser(ArgumentParser):
    """Its complaints are one sentence, like all of ours."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(f"{message}; see {self.prog} --help")


def build_parser() -> ArgumentParser:
    """The whole command line with every built-in subcommand, for help and completion."""
    parser = _Parser(
        "cpufw",
        formatter_class=formatter,
        allow_abbrev=False,
        description="Named CPU models, hot-plug, and guests on KVM.",
    )
    parser.add_argument("--version", action="version", version=f"cpufw {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name in COMMANDS:
        command = builtin(name)
        each = subparsers.add_parser(
            name,
            help=command.summary,
            description=command.summary,
            formatter_class=formatter,
            allow_abbrev=False,
        )
        _add_options(each, command)
    return parser


def command_parser(command: Command) -> ArgumentParser:
    """The parser of one subcommand's arguments."""
    parser = _Parser(
        f"cpufw {command.name}",
        description=command.summary,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    _add_options(parser, command)
    return parser


def formatter(prog: str) -> HelpFormatter:
    """Help as wide as the terminal; an epilog keeps its lines."""
    # Left to itself argparse imports shutil for the width, at every start.
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (OSError, ValueError):
        columns = 80
    return RawDescriptionHelpFormatter(prog, max_help_position=_HELP_COLUMN, width=columns - 2)


def _add_options(parser: ArgumentParser, command: Command) -> None:
    command.configure(parser)
    group = parser.add_argument_group("common options")
    group.add_argument(
        "--cpudefs",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder with further definitions (also CPUFW_CPUDEFS and ~/.config/cpufw/cpudefs)",
    )
    group.add_argument(
        "--strict-plugins", action="store_true", help="a plugin that is broken is an error"
    )
    group.add_argument(
        "--debug", action="store_true", help="show where in cpufw an error was raised"
    )
