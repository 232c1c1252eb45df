"""The file of a snapshot: whatever happens while it is written, one of the two is there whole."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cpufw.errors import StateError
from cpufw.snapshot.file import replaced

OLD, NEW = b"old" * 5000, b"new" * 70000

_WRITER = """
import os, sys
from pathlib import Path
from cpufw.snapshot.file import replaced
path, moment = sys.argv[1:]
with replaced(Path(path)) as write:
    for start in range(0, 210000, 1000):
        if str(start) == moment:
            os.kill(os.getpid(), 9)
        write((b"new" * 70000)[start : start + 1000])
    if moment == "fsync":
        os.fsync = lambda _: os.kill(os.getpid(), 9)
    if moment == "rename":
        os.replace = lambda *_: os.kill(os.getpid(), 9)
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "guest.snap"
    path.write_bytes(OLD)
    return path


def write_new(path: Path) -> None:
    with replaced(path) as write:
        write(NEW)


def test_the_new_file_takes_the_place_of_the_old(old: Path) -> None:
    with replaced(old) as write:
        write(NEW[:100])
        assert old.read_bytes() == OLD
        write(NEW[100:])
    assert old.read_bytes() == NEW
    assert [each.name for each in old.parent.iterdir()] == ["guest.snap"]
    assert old.stat().st_mode & 0o777 == 0o600  # a guest's memory is nobody else's affair


def test_an_error_leaves_the_old_file(old: Path) -> None:
    def fail() -> None:
        with replaced(old) as write:
            write(NEW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert old.read_bytes() == OLD
    assert [each.name for each in old.parent.iterdir()] == ["guest.snap"]


@pytest.mark.parametrize("moment", ["0", "1000", "104000", "209000", "fsync", "rename"])
def test_a_kill_leaves_the_old_file(old: Path, moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", _WRITER, str(old), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert old.read_bytes() == OLD


@pytest.mark.parametrize("limit", [0, 1, 100_000, len(NEW) - 1])
def test_a_file_that_may_not_grow_leaves_the_old_one(old: Path, limit: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StateError, match="cannot be written: File too large; what was there"):
            write_new(old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert old.read_bytes() == OLD
    assert [each.name for each in old.parent.iterdir()] == ["guest.snap"]


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "missing" / "x", "No such file"),
        (tmp_path, "it is a folder"),
    ):
        with pytest.raises(StateError, match=f"{path} cannot be written: {reason}"):
            write_new(path)


def test_a_full_disk_is_named(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (number, str(old) + ".tmp"))
    with pytest.raises(StateError, match="No space left on device"):
        write_new(old)
    assert old.read_bytes() == OLD
