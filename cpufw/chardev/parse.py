"""Character devices by what a command line calls them."""

from __future__ import annotations

from pathlib import Path

from cpufw.chardev.chardev import Chardev, NullChardev
from cpufw.errors import UsageError

FORMS = "stdio, pty, unix:PATH[,server=on][,wait=off], file:PATH, fd:N or none"


def parse_chardev(text: str) -> Chardev:
    """The chardev that `text` names, opened; the caller closes it.

    `stdio`, `pty`, `unix:PATH[,server=on][,wait=off]`, `file:PATH`, `fd:N`, `none`. Raises
    `UsageError` for anything else, `ChardevError` for what cannot be opened.
    """
    kind, colon, rest = text.partition(":")
    match kind, bool(colon and rest):
        case "none", False if not colon:
            return NullChardev()
        case "stdio", False if not colon:
            from cpufw.chardev.stdio import StdioChardev

            return StdioChardev()
        case "pty", False if not colon:
            from cpufw.chardev.pty import PtyChardev

            return PtyChardev()
        case "file", True:
            from cpufw.chardev.fd import FileChardev

            return FileChardev(Path(rest))
        case "fd", True:
            return _fd(text, rest)
        case "unix", True:
            return _unix(text, rest)
    raise UsageError(f"'{text}' is not {FORMS}")


def _fd(text: str, number: str) -> Chardev:
    from cpufw.chardev.fd import open_fd

    if not (number.isascii() and number.isdecimal()):
        raise UsageError(f"'{text}' does not end in the number of an open file, as fd:3 does")
    return open_fd(int(number))


def _unix(text: str, rest: str) -> Chardev:
    from cpufw.chardev.unix import UnixChardev

    path, *options = rest.split(",")
    for option in options:
        if option not in ("server=on", "wait=off"):
            raise UsageError(
                f"'{text}': there is no option '{option}', only server=on and wait=off"
            )
    if not path:
        raise UsageError(f"'{text}' has no path, expected {FORMS}")
    return UnixChardev(Path(path))
