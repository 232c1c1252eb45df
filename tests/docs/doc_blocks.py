"""The documents of the project taken apart: fenced blocks, headings, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(\w*)\s*$")
_DIRECTIVES = re.compile(r"^<!-- (.*) -->$")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: `line` is that of its first line of text, counted from 1.

    `directives` come from an HTML comment on the line before the fence: `<!-- kvm, file: a -->`
    gives `{"kvm": "", "file": "a"}`.
    """

    path: Path
    line: int
    language: str
    text: str
    directives: dict[str, str]

    @property
    def id(self) -> str:
        """Where it is, for messages and test names."""
        return f"{self.path.relative_to(PROJECT)}:{self.line}"

    @property
    def lines(self) -> list[str]:
        """Its text, line by line."""
        return self.text.splitlines()


def documents() -> list[Path]:
    """README and everything under docs/."""
    return [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("**/*.md"))]


def blocks(path: Path) -> list[Block]:
    """Every fenced block of a document, in order."""
    found: list[Block] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    start, language = None, ""
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start, language = number + 1, fence[1]
            continue
        text = "".join(f"{inner}\n" for inner in lines[start:number])
        before = lines[start - 2] if start >= 2 else ""
        found.append(Block(path, start + 1, language, text, _directives(before)))
        start = None
    assert start is None, f"{path.name}: the block that begins on line {start} has no end"
    return found


def _directives(line: str) -> dict[str, str]:
    comment = _DIRECTIVES.match(line)
    if comment is None:
        return {}
    parts = (part.partition(":") for part in comment[1].split(","))
    return {name.strip(): value.strip() for name, _, value in parts}


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not in a fenced block."""
    inside = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            yield number, line


def headings(path: Path) -> list[str]:
    """The text of each heading."""
    return [line.lstrip("#").strip() for _, line in prose(path) if re.match(r"#{1,6} ", line)]


def anchors(path: Path) -> set[str]:
    """What a link to a heading of this document may say after its `#`."""
    slugs = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings(path))
    return {slug.replace(" ", "-") for slug in slugs}


def links(path: Path) -> Iterator[tuple[int, str]]:
    """Line and target of each link."""
    for number, line in prose(path):
        for target in _LINK.findall(line):
            yield number, target
