"""docs/models.md is written by a tool from the definitions: it must be what that writes now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_models_page_is_what_its_tool_writes() -> None:
    tool = ROOT / "tools" / "models_page.py"
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
