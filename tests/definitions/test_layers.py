"""Folders upon one another: from what is recorded, or loaded as if nothing were."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpufw.definitions import stamp, store
from cpufw.definitions.layers import Layers
from cpufw.errors import DefinitionError

from .workshop import make

MINE = "kind: lab-model\nname: {}\ndescription: Of the user\nbase: one\n"


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make(tmp_path / "lab")
    (tmp_path / "schema").symlink_to(folder / "schema")  # for the folders beside it
    return folder


def user_folder(path: Path, name: str) -> Path:
    path.mkdir()
    (path / f"{name}.yaml").write_text(MINE.format(name))
    return path


def layers(*folders: Path) -> Layers:
    """The first alone and the others upon it, from the stamp where it fits; records them."""
    before = stamp.environment()
    made = Layers(stamp.fresh_stamp(()), None)
    for number, folder in enumerate(folders):
        made.add(folder, alone=not number)
    made.record((), before, [])
    return made


def names(made: Layers) -> list[str]:
    return [row["name"] for row in made.listing()]


def test_what_is_recorded_is_not_hashed_again(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = user_folder(tmp_path / "mine", "two")
    first = layers(lab, mine)
    monkeypatch.setattr(store, "content_key", None)  # so that whoever hashes fails
    again = layers(lab, mine)
    assert names(again) == names(first) == ["one", "one-v1", "one-v2", "one-wider", "two"]
    assert set(again.catalogue("lab", True)["two"].features) == {"base", "wide"}
    assert stamp.fresh_listing(()) == again.listing()


def test_a_folder_that_comes_between_is_seen(lab: Path, tmp_path: Path) -> None:
    last = user_folder(tmp_path / "last", "three")
    layers(lab, last)
    between = user_folder(tmp_path / "between", "two")
    (last / "three.yaml").write_text(MINE.format("three").replace("base: one", "base: two"))
    with pytest.raises(DefinitionError, match="base model 'two' is not known"):
        layers(lab, last)
    known = ["one", "one-v1", "one-v2", "one-wider"]
    assert names(layers(lab, between, last)) == [*known, "two", "three"]
    assert names(layers(lab, between)) == [*known, "two"]
    with pytest.raises(DefinitionError, match="base model 'two' is not known"):
        layers(lab, last)


def test_a_name_is_defined_once(lab: Path, tmp_path: Path) -> None:
    folders = [user_folder(tmp_path / place, "two") for place in ("mine", "yours")]
    made = Layers(None, None)
    made.add(lab, alone=True)
    made.add(folders[0])
    with pytest.raises(DefinitionError, match="two"):
        made.add(folders[1])
    assert names(made)[-1] == "two"
