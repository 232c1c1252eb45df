"""When the output that a document shows counts as the output that came.

Both sides are changed by the same rules, then they must be equal line by line, where a line `…` in
the document stands for any lines. The rules:

- seconds in brackets before a machine's line (`[   0.255]`) are not compared;
- in a block marked `kvm` three things that depend on the host are not compared: the values of the
  demonstration guest's feature words, warnings and counts of assists, and the detail behind
  `slot N online`, which is either the vCPU's first exit or the guest's `_OST`, whichever comes
  first. The machine's lines (those that begin with a bracket) and the guest's come from different
  threads: each of the two must be in order, how they mix is not compared;
- in a block marked `host-specific` only the first word of each line is compared.
"""

from __future__ import annotations

import difflib
import re

ELLIPSIS = "…"

_SECONDS = re.compile(r"^\[ *\d+\.\d+\]")
_WORD = re.compile(r"^(cpu \d+: word \S+) [0-9a-f]+$")
_ONLINE = re.compile(r"(slot \d+ online) \(.*\)$")
_OF_THE_HOST = ("cpufw: warning: ", "cpufw: assists: ")


def difference(shown: list[str], came: list[str], directives: dict[str, str]) -> str:
    """How `came` differs from what is `shown`; empty if it does not."""
    for expected, actual in zip(
        _streams(shown, directives), _streams(came, directives), strict=True
    ):
        if not _matches(expected, actual):
            return "\n".join(difflib.unified_diff(expected, actual, "shown", "came", lineterm=""))
    return ""


def comparable(line: str, directives: dict[str, str]) -> str:
    """What of a line is compared."""
    line = _SECONDS.sub("[seconds]", line)
    if "kvm" in directives:
        line = _ONLINE.sub(r"\1", _WORD.sub(r"\1 VALUE", line))
    if "host-specific" in directives:
        line = line.split()[0] if line.split() else ""
    return line.rstrip()


def _streams(lines: list[str], directives: dict[str, str]) -> tuple[list[str], ...]:
    if "kvm" in directives:
        lines = [line for line in lines if not line.startswith(_OF_THE_HOST)]
    lines = [comparable(line, directives) for line in lines]
    if "kvm" not in directives:
        return (lines,)
    machine = [line for line in lines if line.startswith("[") or line == ELLIPSIS]
    return machine, [line for line in lines if not line.startswith("[")]


def _matches(shown: list[str], came: list[str]) -> bool:
    pattern = "".join(
        r"(?:.*\n)*?" if line == ELLIPSIS else re.escape(line) + r"\n" for line in shown
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in came)) is not None


def trimmed(shown: list[str], came: list[str], directives: dict[str, str]) -> list[str]:
    """`came` with the same parts left out as in `shown`.

    Raises ValueError when a part between two `…` cannot be found again.
    """
    parts: list[list[str]] = [[]]
    for line in shown:
        if line == ELLIPSIS:
            parts.append([])
        else:
            parts[-1].append(line)
    if len(parts) == 1:
        return came
    first, *middle, last = parts
    kept, position = came[: len(first)], len(first)
    for part in middle:
        wanted = comparable(part[0], directives)
        rest = range(position, len(came))
        start = next((i for i in rest if comparable(came[i], directives) == wanted), None)
        if start is None:
            raise ValueError(f"the line '{part[0]}' does not come any more: trim it by hand")
        position = start + len(part)
        kept += [ELLIPSIS, *came[start:position]]
    return [*kept, ELLIPSIS, *came[max(position, len(came) - len(last)) :]]
