"""`--serial`: what a guest's serial ports lead to."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from cpufw.chardev import FORMS, Chardev, parse_chardev
from cpufw.cli.output import say
from cpufw.errors import ChardevError, UsageError


def add_serial_option(parser: ArgumentParser) -> None:
    """Add `--serial`, which may be given once for each port, and `--virtio-console`."""
    parser.add_argument(
        "--serial",
        action="append",
        default=[],
        metavar="WHERE",
        help="where serial ports lead to, first given COM1 (port 0x3f8), up to COM4: "
        f"{FORMS} (default: stdio)",
    )
    parser.add_argument(
        "--virtio-console",
        metavar="WHERE",
        help="a virtio console, and where it leads to: as for --serial",
    )


@contextmanager
def serial_chardevs(given: Sequence[str]) -> Iterator[list[Chardev]]:
    """The chardevs for COM1 and on, closed at the end, with the terminal as it was before.

    Raises `UsageError` or `ChardevError`, also for one that fails inside the block.
    """
    places = list(given) or ["stdio"]
    if places.count("stdio") > 1:
        raise UsageError("--serial: stdio is given twice, and can lead to one port only")
    with ExitStack() as stack:
        chardevs = [stack.enter_context(_open("--serial", text)) for text in places]
        try:
            yield chardevs
        except ChardevError as error:
            raise ChardevError(f"--serial: {error}") from None


@contextmanager
def console_chardev(given: str | None, serial: Sequence[str]) -> Iterator[Chardev | None]:
    """The chardev of `--virtio-console`, if it is given. Raises `UsageError`, `ChardevError`."""
    if given is None:
        yield None
        return
    if given == "stdio" and "stdio" in (serial or ["stdio"]):
        raise UsageError(
            "--virtio-console: COM1 leads to stdio; give --serial none, or another place"
        )
    with _open("--virtio-console", given) as chardev:
        yield chardev


def _open(option: str, place: str) -> Chardev:
    try:
        return parse_chardev(place)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None
    except ChardevError as error:
        raise ChardevError(f"{option}: {error}") from None


def say_places(chardevs: Sequence[Chardev], console: Chardev | None = None) -> None:
    """Tell the user what could not be known before, and the keys of the terminal."""
    from cpufw.chardev.pty import PtyChardev
    from cpufw.chardev.stdio import StdioChardev

    places = [(f"COM{number}", chardev) for number, chardev in enumerate(chardevs, 1)]
    for name, chardev in [*places, *([("hvc0", console)] if console is not None else [])]:
        if isinstance(chardev, PtyChardev):
            say(f"{name} is {chardev.path}")
        elif isinstance(chardev, StdioChardev) and chardev.has_escape_keys:
            say("Ctrl-A x ends the run, Ctrl-A h shows all keys")
