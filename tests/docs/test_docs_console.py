"""Every transcript in the documents is what the commands print; see doc_rules for what is not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from doc_blocks import Block, blocks, documents
from doc_rules import difference
from doc_sandbox import commands, run_console

CONSOLE = [
    pytest.param(block, id=block.id, marks=[pytest.mark.kvm] if "kvm" in block.directives else [])
    for path in documents()
    for block in blocks(path)
    if block.language == "console"
]


@pytest.mark.parametrize("block", CONSOLE)
def test_a_transcript_is_what_the_commands_print(block: Block, tmp_path: Path) -> None:
    if "guests" in block.directives and not os.environ.get("CPUFW_GUESTS"):
        pytest.skip("the guests nobody here wrote are not built: make guests")
    wanted = commands(block)
    if sys.version_info >= (3, 13) and any("--help" in command.line for command in wanted):
        pytest.skip("argparse words its help differently from Python 3.13 on")
    printed = run_console(block, tmp_path)
    assert len(printed) == len(wanted)
    for command, came in zip(wanted, printed, strict=True):
        wrong = difference(command.shown, came, block.directives)
        assert not wrong, f"{block.id}: $ {command.line}\n{wrong}\nrun tests/docs/regenerate.py"
