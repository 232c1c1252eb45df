"""The tools that compare our definitions with QEMU's answers, run as a maintainer runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "tests" / "data" / "qemu10"


def run_tool(name: str, cpudefs: Path, *options: str) -> tuple[int, list[str]]:
    """Exit status and lines of `tools/<name>`, which must not complain."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / name, REFERENCE, cpudefs, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "", done.stderr
    return done.returncode, done.stdout.splitlines()
