"""How the figures are printed: a table for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from benchmarks.figures import NO_TARGET, Figure, Row, Target

_HEADINGS = ("what", "cpufw", "reference", "ratio", "target", "met")


def print_json(rows: Sequence[Row], conditions: Mapping[str, object]) -> None:
    """One object: the conditions and a list of rows."""
    shown = []
    for row in rows:
        entry = asdict(row)
        if isinstance(row, Figure):
            entry.update(ratio=row.ratio, met=row.met)
        shown.append(entry)
    print(json.dumps({"conditions": conditions, "figures": shown}, indent=2))


def print_table(rows: Sequence[Row], conditions: Mapping[str, object]) -> None:
    """The conditions and a table, drawn with rich on a terminal and plain in a pipe."""
    for name, value in conditions.items():
        print(f"{name}: {value}")
    cells = [_cells(row) for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*_HEADINGS)
        for row in cells:
            table.add_row(*row, style={"yes": "green", "NO": "red"}.get(row[-1]))
        Console().print(table)
    else:
        widths = [max(map(len, column)) for column in zip(_HEADINGS, *cells, strict=True)]
        for row in (_HEADINGS, *cells):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print(line.rstrip())
    aimed = [row for row in rows if not isinstance(row, Figure) or row.target != NO_TARGET]
    met = sum(isinstance(row, Figure) and row.met is True for row in aimed)
    print(f"{met} of {len(aimed)} targets met")


def _cells(row: Row) -> tuple[str, ...]:
    if not isinstance(row, Figure):
        return row.what, "not measured", row.reason, "", "", "?"
    reference = ""
    if row.reference_value is not None:
        reference = f"{_number(row.reference_value)} {row.unit} ({row.reference})"
    elif row.reference:
        reference = f"{row.reference} is not here"
    return (
        row.what,
        f"{_number(row.value)} {row.unit}",
        reference,
        "" if row.ratio is None else f"{row.ratio:.2f}",
        _target(row.target, row.unit),
        {True: "yes", False: "NO", None: "" if row.target == NO_TARGET else "?"}[row.met],
    )


def _target(target: Target, unit: str) -> str:
    if target == NO_TARGET:
        return ""
    unit = "" if target.of_ratio else f" {unit}"
    if target.most is not None:
        return f"<= {target.most:g}{unit}"
    return f">= {target.least:g}{unit}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
