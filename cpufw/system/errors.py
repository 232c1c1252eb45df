"""What the command line says when it cannot be done."""

from __future__ import annotations

from cpufw.errors import UsageError


class CommandLineError(UsageError):
    """A sentence in QEMU's words; the program's name goes before it on standard error."""


def refused(option: str, value: str, why: str) -> CommandLineError:
    """`-device foo: why`: how QEMU begins an error of one option."""
    return CommandLineError(f"-{option} {value}: {why}" if value else f"-{option}: {why}")
