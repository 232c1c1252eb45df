"""What a subcommand of `cpufw` is, so that plugins can add their own."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would cost start-up time
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable


class Command:
    """A subcommand: `configure` adds its options, `run` does it and returns the exit status.

    `defaults`, if given, are the options of the bare command: with them it starts without the
    cost of argparse.
    """

    __slots__ = ("configure", "defaults", "name", "run", "summary")

    def __init__(
        self,
        name: str,
        summary: str,
        configure: Callable[[ArgumentParser], None],
        run: Callable[[Namespace], int],
        defaults: Namespace | None = None,
    ) -> None:
        self.name, self.summary, self.configure, self.run = name, summary, configure, run
        self.defaults = defaults
