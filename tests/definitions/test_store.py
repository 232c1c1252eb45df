"""Folders to indexes: compiled once, kept by content, rebuilt when stale or damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cpufw.definitions.index import Index
from cpufw.definitions.store import SHIPPED, load_folder
from cpufw.errors import CpufwError, DefinitionError

from .workshop import MODEL_SCHEMA, ONE, make

TWO = "kind: lab-model\nname: two\ndescription: The second\nfeatures: [nested]\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "lab")


def load(folder: Path) -> tuple[list[str], bool, Path | None]:
    """The models' names, whether they had to be compiled, and where the index is."""
    steps: list[tuple[int, int]] = []
    index, path = load_folder(folder, progress=lambda *step: steps.append(step))
    return list(index.compiled()["lab"].models), bool(steps), path


NAMES = ["one", "one-v1", "one-v2", "one-wider"]


def test_definitions_are_compiled_once(folder: Path, cache: Path) -> None:
    names, compiled, path = load(folder)
    assert (names, compiled) == (NAMES, True)
    assert path is not None
    assert path.is_relative_to(cache / "cpufw")
    assert load(folder) == (NAMES, False, path)
    os.utime(folder / "one.yaml")  # touched, but the same
    assert load(folder) == (NAMES, False, path)


def change(folder: Path) -> list[str]:
    text = ONE.replace("one-wider", "one-broad")
    (folder / "one.yaml").write_text(text)
    return [*NAMES[:3], "one-broad"]


def add(folder: Path) -> list[str]:
    (folder / "more").mkdir()
    (folder / "more" / "two.yaml").write_text(TWO)
    return [*NAMES, "two"]


def rename(folder: Path) -> list[str]:
    (folder / "one.yaml").rename(folder / "uno.yaml")
    (folder / "uno.yaml").write_text(ONE.replace("name: one", "name: uno"))
    return ["uno", "uno-v1", "uno-v2", "one-wider"]


def remove(folder: Path) -> list[str]:
    (folder / "one.yaml").unlink()
    return []


@pytest.mark.parametrize("edit", [change, add, rename, remove])
def test_what_changes_is_compiled_anew(folder: Path, edit: Callable[[Path], list[str]]) -> None:
    load(folder)
    expected = edit(folder)
    names, compiled, _ = load(folder)
    assert compiled
    assert sorted(names) == sorted(expected)
    assert not load(folder)[1]


def test_a_stricter_schema_is_applied_to_what_was_compiled_before(folder: Path) -> None:
    load(folder)
    stricter = {**MODEL_SCHEMA, "properties": {**MODEL_SCHEMA["properties"], "vendor": False}}
    (folder / "schema" / "lab-model.schema.json").write_text(json.dumps(stricter))
    with pytest.raises(DefinitionError, match=r"one\.yaml:4:1: vendor: it is not allowed here"):
        load(folder)


def test_other_definitions_below_are_another_index(folder: Path) -> None:
    first = load_folder(folder, base_keys=["a"])[1]
    second = load_folder(folder, base_keys=["b"])[1]
    assert first != second
    assert load_folder(folder, base_keys=["a"])[1] == first


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(_: bytes) -> bytes:
    return b""


def flip_header(content: bytes) -> bytes:
    return content.replace(b"cpufw-index", b"cpufw-indax", 1)


def flip_end(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def lengthen(content: bytes) -> bytes:
    return content + b"x"


@pytest.mark.parametrize("damage", [truncate, empty, flip_header, flip_end, lengthen])
def test_a_damaged_index_is_rebuilt(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = load(folder)[2]
    assert path is not None
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert load(folder) == (NAMES, True, path)
    assert path.read_bytes() == good


def test_another_folder_s_index_in_its_place_is_not_believed(folder: Path, tmp_path: Path) -> None:
    path = load(folder)[2]
    other = load(make(tmp_path / "other", two=TWO))[2]
    assert path is not None
    assert other is not None
    path.write_bytes(other.read_bytes())
    assert load(folder) == (NAMES, True, path)


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_cache_that_cannot_be_written_only_costs_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / below))
    assert load(folder) == (NAMES, True, None)
    assert load(folder) == (NAMES, True, None)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_rejected_definition_leaves_the_index_as_it_was(folder: Path) -> None:
    path = load(folder)[2]
    assert path is not None
    before = {each: each.read_bytes() for each in path.parent.iterdir()}
    (folder / "one.yaml").write_text(ONE.replace("wide]", "waid]"))
    for _ in range(2):
        with pytest.raises(DefinitionError, match=r"one\.yaml:6:18: feature 'waid'"):
            load(folder)
    assert {each: each.read_bytes() for each in path.parent.iterdir()} == before
    (folder / "one.yaml").write_text(ONE)
    assert load(folder) == (NAMES, False, path)


def test_an_index_that_travels_beside_its_definitions_is_used_while_it_fits(folder: Path) -> None:
    path = load(folder)[2]
    assert path is not None
    shipped = path.rename(folder / SHIPPED)
    assert load(folder) == (NAMES, False, shipped)
    expected = change(folder)
    names, compiled, where = load(folder)
    assert (names, compiled) == (expected, True)
    assert where == path.parent / f"{Index.load(where or '').key}.index"  # type: ignore[union-attr]


def test_what_is_no_file_is_no_definition(folder: Path) -> None:
    (folder / "folder.yaml").mkdir()
    (folder / ".#one.yaml").symlink_to("someone@somewhere.1234")  # an editor's lock
    assert load(folder)[0] == NAMES
    assert not load(folder)[1]


def test_a_file_that_changes_while_it_is_compiled_is_not_kept(folder: Path) -> None:
    def interfere(done: int, files: int) -> None:
        if done == files:
            change(folder)

    index, path = load_folder(folder, progress=interfere)
    assert list(index.compiled()["lab"].models) == NAMES
    assert path is None
    assert load(folder)[0] == [*NAMES[:3], "one-broad"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone", tmp_path / "lab" / "one.yaml"):
        with pytest.raises(CpufwError, match=f"definition folder {path} does not exist"):
            load_folder(path)
