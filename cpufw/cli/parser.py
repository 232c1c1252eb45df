"""The command line's grammar, for every command line that is more than a command's name."""

from __future__ import annotations

import os
import sys
from argparse import Action, ArgumentParser, HelpFormatter, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, Any, NoReturn

from cpufw.cli import COMMANDS, builtin, plugin_commands
from cpufw.command import Command
from cpufw.errors import UsageError
from cpufw.version import __version__

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_HELP_COLUMN = 28  # where the options' explanations begin


class _Parser(ArgumentParser):
    """Its complaints are one sentence, like all of ours."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(f"{message}; see {self.prog} --help")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        # As argparse does it, but that it keeps silent where help cannot be written.
        (file or sys.stdout).write(message)


class _Formatter(RawDescriptionHelpFormatter):
    """An epilog keeps its lines; the names of commands have their explanations beside them."""

    def add_argument(self, action: Action) -> None:
        """Count the indentation of commands, which argparse before Python 3.13 forgets."""
        super().add_argument(action)
        if list(self._iter_indented_subactions(action)):
            self._action_max_length += self._indent_increment


def build_parser() -> ArgumentParser:
    """The whole command line with every subcommand, for help and completion."""
    parser = _Parser(
        "cpufw",
        formatter_class=formatter,
        allow_abbrev=False,
        description="Named CPU models, hot-plug, and guests on KVM.",
    )
    parser.add_argument("--version", action="version", version=f"cpufw {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in (*map(builtin, COMMANDS), *plugin_commands()):
        if command.name in subparsers.choices:
            continue  # as on the command line, where built-in commands go first
        each = subparsers.add_parser(command.name, help=command.summary, **_manner(command))
        _add_options(each, command)
    return parser


def command_parser(command: Command) -> ArgumentParser:
    """The parser of one subcommand's arguments."""
    parser = _Parser(f"cpufw {command.name}", **_manner(command))
    _add_options(parser, command)
    return parser


def _manner(command: Command) -> dict[str, Any]:
    return {
        "description": command.summary,
        "formatter_class": formatter,
        "allow_abbrev": False,
    }


def formatter(prog: str) -> HelpFormatter:
    """Help as wide as the terminal."""
    # Left to itself argparse imports shutil for the width, at every start.
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (OSError, ValueError):
        columns = 80
    return _Formatter(prog, max_help_position=_HELP_COLUMN, width=columns - 2)


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
