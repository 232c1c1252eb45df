"""A command line of `cpufw-system-x86_64` as far as the machine that it describes."""

from __future__ import annotations

from collections.abc import Sequence

from cpufw.errors import CpufwError
from cpufw.framework import Framework
from cpufw.system.chardevs import Chardevs
from cpufw.system.command_line import parse_command_line
from cpufw.system.guest import build_machine


def attempt(arguments: Sequence[str], framework: Framework | None = None) -> str:
    """What is said of `arguments`; empty if the machine was made."""
    try:
        line = parse_command_line(arguments)
        chardevs = Chardevs(line)
        try:
            with build_machine(framework or Framework(), line, chardevs):
                return ""
        finally:
            chardevs.close()
    except CpufwError as error:
        return str(error)
