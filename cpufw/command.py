"""What a subcommand of `cpufw` is, so that plugins can add their own."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would cost start-up time
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Sequence
    from typing import Any


class Command:
    """A subcommand: `configure` adds its options, `run` does it and returns the exit status.

    `defaults`, if given, makes the options as they are where none is given: the command with only
    its `operands` then starts without the cost of argparse.
    """

    __slots__ = ("configure", "defaults", "name", "operands", "run", "summary")

    def __init__(
        self,
        name: str,
        summary: str,
        configure: Callable[[ArgumentParser], None],
        run: Callable[[Namespace], int],
        defaults: Callable[[], Any] | None = None,
        operands: Sequence[str] = (),
    ) -> None:
        self.name, self.summary, self.configure, self.run = name, summary, configure, run
        self.defaults, self.operands = defaults, operands

    def parsed(self, arguments: Sequence[str]) -> Namespace | None:
        """The options where `arguments` are just the operands; None where it takes a parser."""
        if self.defaults is None or len(arguments) != len(self.operands):
            return None
        if any(argument.startswith("-") for argument in arguments):
            return None
        options: Namespace = self.defaults()
        for name, argument in zip(self.operands, arguments, strict=True):
            setattr(options, name, argument)
        return options
