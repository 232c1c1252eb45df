"""The tables of docs/monitor.md are written by a tool from the commands: they must be those."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tables_are_what_their_tool_writes() -> None:
    tool = ROOT / "tools" / "monitor_page.py"
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
