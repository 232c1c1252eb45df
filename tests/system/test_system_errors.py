"""What a command line that cannot be is told, against what QEMU 10.0 said of the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from system_lines import attempt

pytestmark = pytest.mark.kvm

DATA = Path(__file__).parents[1] / "data" / "qemu10"
CASES = json.loads((DATA / "cli-errors.json").read_text(encoding="utf-8"))
DIFFERENCES = json.loads((Path(__file__).with_name("cli-differences.json")).read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=[" ".join(case["argv"]) for case in CASES])
def test_as_qemu(case: dict[str, Any]) -> None:
    answer = attempt(case["argv"])
    other = DIFFERENCES.get(" ".join(case["argv"]))
    expected = "\n".join(case["says"]) if case["status"] else ""
    if other is not None:
        assert re.fullmatch(other["says"], answer)
        assert answer != expected, f"no difference any more: {other['why']}"
    else:
        assert answer == expected


def test_every_difference_is_of_a_case() -> None:
    assert DIFFERENCES.keys() <= {" ".join(case["argv"]) for case in CASES}
    assert all(other["why"] for other in DIFFERENCES.values())
