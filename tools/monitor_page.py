"""Write the tables of commands in docs/monitor.md, from the commands themselves.

    python tools/monitor_page.py [--check]

With --check nothing is written; the exit status is 1 if something would be.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin

import cpufw.monitor.commands  # noqa: F401 - fills the table
from cpufw.monitor.command import COMMANDS, Command
from cpufw.monitor.hmp import shell  # noqa: F401 - fills the table
from cpufw.monitor.hmp.command import COMMANDS as HMP
from cpufw.monitor.schema import bare

PAGE = Path(__file__).resolve().parents[1] / "docs" / "monitor.md"


def main() -> None:
    """Write the tables or check them."""
    page = PAGE.read_text(encoding="utf-8")
    fresh = _put(_put(page, "QMP commands", qmp_table()), "HMP commands", hmp_table())
    if "--check" not in sys.argv:
        PAGE.write_text(fresh, encoding="utf-8")
    elif fresh != page:
        sys.exit(f"{PAGE.name}: its tables are not those of now; run tools/monitor_page.py")


def _put(page: str, heading: str, table: str) -> str:
    """`page` with `table` as the only table under this heading."""
    before, mark, after = page.partition(f"\n## {heading}\n")
    if not mark:
        sys.exit(f"{PAGE.name} has no heading '{heading}'")
    section, next_heading, rest = after.partition("\n## ")
    section = re.sub(r"\n(\|.*\n)+", lambda _: f"\n{table}", section, count=1)
    return before + mark + section + next_heading + rest


def qmp_table() -> str:
    """One row a command: name, arguments, answer, what it does."""
    rows = ["| command | arguments | answer | |", "|---|---|---|---|"]
    for name in sorted(COMMANDS):
        command = COMMANDS[name]
        sentence = (inspect.getdoc(command.function) or "").partition("\n\n")[0]
        answer = "" if command.returns is NoneType else f"`{_type(command.returns)}`"
        cells = (f"`{name}`", _arguments(command), answer, " ".join(sentence.split()))
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "".join(f"{row}\n" for row in rows)


def _arguments(command: Command) -> str:
    shown = [
        f"`{name}{'?' if optional else ''}: {_type(kind)}`"
        for name, (kind, optional) in command.arguments.items()
    ]
    return ", ".join([*shown, *(["properties"] if command.free_form else [])])


def _type(annotated: Any) -> str:
    kind, _ = bare(annotated)
    origin = get_origin(kind)
    if origin is NotRequired:
        return _type(get_args(kind)[0])
    if origin is list:
        return f"[{_type(get_args(kind)[0])}]"
    if origin is Literal:
        values = get_args(kind)
        return "|".join(values) if len(values) <= 4 else "enum"
    if origin in (Union, UnionType):
        return "|".join(_type(each) for each in get_args(kind) if each is not NoneType)
    return "any" if kind is Any else str(kind.__name__)


def hmp_table() -> str:
    """One row a command of HMP."""
    rows = ["| command | |", "|---|---|"]
    for name in sorted(HMP):
        text, _, sentence = HMP[name].help.partition(" -- ")
        shown = text.strip().replace("|", "\\|")
        rows.append(f"| `{shown}` | {sentence} |")
    return "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    main()
