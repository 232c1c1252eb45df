"""Every Python block in the documents runs, and prints what the document says it prints."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from doc_blocks import PROJECT, Block, blocks, documents
from doc_rules import difference
from doc_sandbox import run_python

WITH_PYTHON = [
    path for path in documents() if any(block.language == "python" for block in blocks(path))
]
WITH_KVM = [
    path
    for path in WITH_PYTHON
    if any(block.language == "python" and "kvm" in block.directives for block in blocks(path))
]


def name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


@pytest.mark.parametrize("path", WITH_PYTHON, ids=name)
def test_python_blocks_that_need_no_kvm_run(path: Path, tmp_path: Path) -> None:
    check(path, False, tmp_path)


@pytest.mark.kvm
@pytest.mark.parametrize("path", WITH_KVM, ids=name)
def test_all_python_blocks_run(path: Path, tmp_path: Path) -> None:
    check(path, True, tmp_path)


def check(path: Path, kvm: bool, folder: Path) -> None:
    outputs = shown_outputs(path)
    for result in run_python(path, kvm, folder):
        assert not result.error, f"{path.name}:{result.line}: {result.error}"
        if result.line in outputs:
            shown = outputs[result.line]
            wrong = difference(shown.lines, result.printed, shown.directives)
            assert not wrong, f"{shown.id}:\n{wrong}\nrun tests/docs/regenerate.py"


def shown_outputs(path: Path) -> dict[int, Block]:
    """The block marked `output` that follows each Python block, by that block's line."""
    every = blocks(path)
    return {
        block.line: following
        for block, following in pairwise(every)
        if block.language == "python" and "output" in following.directives
    }
