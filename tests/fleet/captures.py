"""The captured hosts in tests/data/captures; what each can run is in its file's name."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "data" / "captures"
DUMPS = FOLDER / "dumps"
FILES = sorted(FOLDER.glob("*.yaml"))


def file(host: str) -> Path:
    """The capture of the host with this name: `haswell-ep`."""
    (found,) = (path for path in FILES if path.name.startswith(f"{host}_"))
    return found


def expectation(path: Path) -> tuple[str, str]:
    """The model that the host of this file can run, and one that it cannot."""
    _, runs, not_ = path.stem.split("_")
    return runs.removeprefix("runs-"), not_.removeprefix("not-")
