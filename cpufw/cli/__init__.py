"""The `cpufw` command: one file a subcommand, imported when it is asked for.

Exit statuses: 0 done, 1 cpufw could not do it, 2 the request was malformed, 3 the guest died, 124
the guest did not end in time, 130 interrupted, 141 nobody reads the output, 143 terminated. A
guest that leaves through port 0xf4 sets its own: (value << 1) | 1.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from cpufw.cli.output import discard, say
from cpufw.errors import CpufwError, TopologyError, UsageError, nearest

TYPE_CHECKING = False  # importing typing would cost start-up time
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cpufw.command import Command

FAILED, MALFORMED, INTERRUPTED, BROKEN_PIPE, TERMINATED = 1, 2, 130, 141, 143

# Each subcommand's module under cpufw.cli, in the order of --help.
COMMANDS = {
    "list-models": "list_models",
    "show": "show",
    "cpuid": "cpuid",
    "host": "host",
    "expand": "expand",
    "compare": "compare",
    "baseline": "baseline",
    "explain": "explain",
    "verify": "verify",
    "migrate-check": "migrate_check",
    "run": "run",
    "snapshot": "snapshot",
    "demo": "demo",
    "export": "export",
    "import": "import_",
    "validate": "validate",
    "plugins": "plugins",
    "completion": "completion",
}


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt it must pass through every `except Exception`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own); returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _replace_closed_streams()
    try:
        try:
            status = _dispatch(arguments)
        except SystemExit as leaving:  # argparse, after --help
            status = int(leaving.code or 0)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except Terminated:
        return _complain("terminated", TERMINATED)
    except BrokenPipeError:
        discard(sys.stdout)
        return _complain("standard output was closed before everything was written", BROKEN_PIPE)
    except (UsageError, TopologyError) as error:
        return _fail(error, arguments, MALFORMED)
    except CpufwError as error:
        return _fail(error, arguments, FAILED)
    except OSError as error:
        discard(sys.stdout)
        # Whatever is opened by name says so in the error; what is left is what we print to.
        what = error.filename or "standard output"
        return _fail(CpufwError(f"{what}: {error.strerror or error}"), arguments, FAILED)
    return status


def _replace_closed_streams() -> None:
    """Take the places of closed standard streams, or the next open file would be one of them.

    Printing to a closed standard output fails as it should, to a closed standard error it does not.
    """
    if sys.stdin is None:
        sys.stdin = open(os.open(os.devnull, os.O_RDONLY))  # noqa: PTH123, SIM115
    if sys.stdout is None:
        sys.stdout = open(os.open(os.devnull, os.O_RDONLY), "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.open(os.devnull, os.O_WRONLY), "w")  # noqa: PTH123, SIM115


def _dispatch(arguments: list[str]) -> int:
    before = 0
    while before < len(arguments) and arguments[before] in ("--debug", "--strict-plugins"):
        before += 1
    name = arguments[before] if before < len(arguments) else "--help"
    if name.startswith("-"):
        from cpufw.cli.parser import build_parser

        build_parser().parse_args(arguments or ["--help"])
        raise UsageError("a command is missing; see cpufw --help")
    command = builtin(name) if name in COMMANDS else _plugin_command(name)
    options = command.parsed(arguments[1:]) if before == 0 else None
    if options is not None:
        return command.run(options)
    from cpufw.cli.parser import command_parser

    parser = command_parser(command)
    return command.run(parser.parse_args(arguments[:before] + arguments[before + 1 :]))


def builtin(name: str) -> Command:
    """The built-in subcommand `name`."""
    command: Command = import_module(f"cpufw.cli.{COMMANDS[name]}").COMMAND
    return command


def plugin_commands() -> list[Command]:
    """The subcommands that plugins bring."""
    from cpufw.command import Command
    from cpufw.plugins import PluginSet

    return [command for _, command in PluginSet().collect("cpufw_commands", Command)]


def _plugin_command(name: str) -> Command:
    commands = {command.name: command for command in plugin_commands()}
    if name in commands:
        return commands[name]
    near = nearest(name, [*COMMANDS, *commands])
    hint = f"did you mean {near[0]}?" if near else "see cpufw --help"
    raise UsageError(f"there is no command '{name}'; {hint}")


def _fail(error: Exception, arguments: list[str], status: int) -> int:
    if "--debug" in arguments:
        import traceback

        traceback.print_exc()
    return _complain(str(error), status)


def _complain(message: str, status: int) -> int:
    say(message)
    return status
