"""Rewrite the outputs that the documents show from what the commands print now.

    python tests/docs/regenerate.py [FILE…]

A block whose output differs only in what is not compared (see doc_rules) stays as it is, and so
does one that needs KVM where /dev/kvm does not open. Parts left out with `…` stay left out.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from doc_blocks import Block, blocks, documents
from doc_rules import difference, trimmed
from doc_sandbox import commands, run_console, run_python
from test_docs_python import shown_outputs


def kvm_opens() -> bool:
    """Whether blocks marked `kvm` can run here."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def can_run(block: Block) -> bool:
    """Whether what the block needs is there."""
    if "guests" in block.directives and not os.environ.get("CPUFW_GUESTS"):
        return False
    return kvm_opens() or "kvm" not in block.directives


def fresh_lines(path: Path) -> Iterator[tuple[Block, list[str]]]:
    """Each block whose text has to change, with its new lines."""
    for block in blocks(path):
        if block.language == "console" and can_run(block):
            with tempfile.TemporaryDirectory() as folder:
                printed = run_console(block, Path(folder))
            lines: list[str] = []
            for command, came in zip(commands(block), printed, strict=True):
                lines += [f"$ {command.line}", *renewed(command.shown, came, block)]
            yield block, lines
    outputs = shown_outputs(path)
    with tempfile.TemporaryDirectory() as folder:
        for result in run_python(path, kvm_opens(), Path(folder)):
            if result.error:
                sys.exit(f"{path.name}:{result.line}: {result.error}")
            if result.line in outputs:
                shown = outputs[result.line]
                yield shown, renewed(shown.lines, result.printed, shown)


def renewed(shown: list[str], came: list[str], block: Block) -> list[str]:
    """`shown` if it still holds, else what came, trimmed alike."""
    if not difference(shown, came, block.directives):
        return shown
    try:
        return trimmed(shown, came, block.directives)
    except ValueError as error:
        sys.exit(f"{block.id}: {error}")


def main() -> None:
    """Rewrite the documents that are named, or all."""
    paths = [Path(name).resolve() for name in sys.argv[1:]] or documents()
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(XDG_CACHE_HOME=f"{home}/cache", XDG_CONFIG_HOME=f"{home}/config")
        os.environ.pop("CPUFW_CPUDEFS", None)
        for path in paths:
            lines = path.read_text(encoding="utf-8").splitlines()
            # From the end, so that the lines before keep their numbers.
            for block, new in sorted(fresh_lines(path), key=lambda row: -row[0].line):
                if new != block.lines:
                    print(f"{block.id}: new output")
                    lines[block.line - 1 : block.line - 1 + len(block.lines)] = new
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
