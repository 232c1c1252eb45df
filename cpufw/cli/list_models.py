"""`cpufw list-models`: every CPU model there is."""

from __future__ import annotations

from cpufw.cli.output import print_json, print_table
from cpufw.command import Command
from cpufw.definitions.stamp import fresh_listing, user_folders
from cpufw.errors import NotFoundError

TYPE_CHECKING = False  # this command starts in less time than `import typing` takes
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from cpufw.definitions.index import Row
    from cpufw.framework import Framework


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "pattern", nargs="?", metavar="PATTERN", help="part of a name, or a pattern like 'EPYC*v?'"
    )
    parser.add_argument("--arch", metavar="ARCH", help="models of this architecture only")
    parser.add_argument(
        "--usable",
        action="store_true",
        help="also ask the accelerator which of each model's features this host lacks "
        "(only architectures that an accelerator runs)",
    )
    parser.add_argument(
        "--format", choices=("table", "names", "json"), default="table", help="default: table"
    )


def run(options: Namespace) -> int:
    """Print the models that match."""
    rows = fresh_listing(user_folders(options.cpudefs))
    framework = None
    if rows is None or options.usable:
        from cpufw.cli.session import open_framework

        framework = open_framework(options)
        rows = framework.listing()
    if options.usable and framework is not None and options.arch is None:
        runnable = {kind.arch for kind in framework.accelerators}
        rows = [row for row in rows if row["arch"] in runnable]
    rows = _matching(rows, options)
    if options.usable and framework is not None:
        _add_unavailable(rows, framework)
    if options.format == "json":
        print_json(rows)
    elif options.format == "names":
        print("\n".join(row["name"] for row in rows))
    else:
        _print_table(rows, options.usable)
    return 0


def _matching(rows: list[Row], options: Namespace) -> list[Row]:
    if options.arch is not None:
        archs = {row["arch"] for row in rows}
        rows = [row for row in rows if row["arch"] == options.arch]
        if not rows:
            raise NotFoundError(
                "architecture", options.arch, archs, f"expected {' or '.join(sorted(archs))}"
            )
    found = [row for row in rows if _matches(row, options)]
    if not found:
        raise NotFoundError("CPU model", options.pattern, [row["name"] for row in rows])
    return found


def _matches(row: Row, options: Namespace) -> bool:
    if options.pattern is None:
        return True
    pattern, name = options.pattern.casefold(), row["name"].casefold()
    if any(character in pattern for character in "*?["):
        from fnmatch import fnmatchcase

        return fnmatchcase(name, pattern)
    return pattern in name


def _add_unavailable(rows: list[Row], framework: Framework) -> None:
    accelerators = {}
    try:
        for row in rows:
            arch = row["arch"]
            if arch not in accelerators:
                accelerators[arch] = framework.accelerator_of(arch)
            row["unavailable_features"] = list(
                framework.unavailable_features(row["type"], accelerators[arch])
            )
    finally:
        for accelerator in accelerators.values():
            accelerator.close()


def _print_table(rows: list[Row], usable: bool) -> None:
    headings = ["NAME", "ALIAS OF", "ARCH", "VENDOR", "DESCRIPTION"]
    table = []
    for row in rows:
        description = row["description"] + (" (deprecated)" if row["deprecated"] else "")
        cells = [row["name"], row["alias_of"] or "", row["arch"], row["vendor"], description]
        if usable:
            cells[4] = ", ".join(row["unavailable_features"]) or "none"
        table.append(cells)
    if usable:
        headings[4] = "MISSING HERE"
    print_table(headings, table)


class _Defaults:
    """The options of `cpufw list-models` alone, as its parser would give them."""

    pattern, arch, usable, format = None, None, False, "table"
    cpudefs: tuple[str, ...] = ()
    strict_plugins = debug = False


COMMAND = Command("list-models", "list CPU models", configure, run, _Defaults)
