"""The monitor's tests use the guests of tests/x86."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "x86"))
