"""What the monitor's tests share: a guest, and those of tests/x86."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from qmp_guest import Guest, running

sys.path.append(str(Path(__file__).parents[1] / "x86"))


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest that is paused, and its QMP socket."""
    with running(tmp_path_factory.mktemp("qmp")) as found:
        yield found
