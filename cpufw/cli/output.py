"""What commands print: tables for people, JSON for machines, progress on a terminal."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing would cost start-up time
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TextIO


def say(message: str) -> None:
    """Words to the user on standard error; lost, with no other harm, where it takes none."""
    try:
        print(f"cpufw: {message}", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Drop what `stream` has not written yet: Python would fail again to write it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def warn(message: str) -> None:
    """One warning on standard error."""
    say(f"warning: {message}")


def print_json(value: Any) -> None:
    """`value` as indented JSON."""
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False))


def is_hexadecimal(name: str) -> bool:
    """Whether manuals write the value called `name` in hexadecimal."""
    return name.endswith(("level", "level2", "midr", "pvr", "pvr-mask"))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns; on a terminal the heading is bold and the last column is cut to fit."""
    columns = zip(headings, *rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    terminal = sys.stdout.isatty()
    room = 0
    if terminal:
        room = max(20, os.get_terminal_size(sys.stdout.fileno()).columns - sum(widths[:-1]))
        room -= 2 * (len(widths) - 1)
    template = "  ".join([*(f"{{:{width}}}" for width in widths[:-1]), "{}"])
    lines = []
    for *cells, last in (headings, *rows):
        if terminal and len(last) > room:
            last = last[: room - 1] + "…"
        lines.append(template.format(*cells, last).rstrip())
    if terminal and not os.environ.get("NO_COLOR"):
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    print("\n".join(lines))


class CompileProgress:
    """A progress bar on standard error while definitions compile; quiet where it is no terminal.

    Nothing is imported or shown before the first file, so a fresh index costs nothing.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Callable[[int, int], None]:
        return self._update

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _update(self, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("compiling CPU definitions", total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done)
