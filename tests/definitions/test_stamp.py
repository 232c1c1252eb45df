"""The stamp: a fresh start trusts it only while nothing has changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema  # noqa: F401  # compiling imports it, and `start` takes away where it is
import pytest

from cpufw.definitions import stamp
from cpufw.definitions.index import pack
from cpufw.definitions.store import builtin_folder, load_folder

from .workshop import ONE, make


class Start:
    """One program after another in the same place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self, user: tuple[str, ...] = ()) -> None:
        before, seen = stamp.environment(), stamp.signature(str(self.folder))
        index, path = load_folder(self.folder)
        assert path is not None
        self.index = path
        indexes = [(str(self.folder), str(path), index.key)]
        point = ("lab", "cpufw-lab", "4.5", "plugin", {"cpufw_hotplug_veto": ("slot",)})
        plugins = [(*point, [stamp.file_signature(str(self.plugin))])]
        stamp.write_stamp(user, before, {str(self.folder): seen}, indexes, plugins)

    def names(self, user: tuple[str, ...] = ()) -> list[str] | None:
        rows = stamp.fresh_listing(user)
        return None if rows is None else [row["name"] for row in rows]

    @property
    def plugin(self) -> Path:
        return self.folder.parent / "plugin.py"

    @property
    def stamp(self) -> Path:
        return Path(stamp.stamp_path(()))


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "imports").mkdir()
    installed = str(builtin_folder().parent)  # no other: people may be at work in those
    (tmp_path / "plugin.py").touch()
    folders = [str(tmp_path / "imports"), str(tmp_path / "missing"), installed]
    monkeypatch.setattr(sys, "path", folders)
    return Start(make(tmp_path / "lab"))


NAMES = ["one", "one-v1", "one-v2", "one-wider"]


def later(path: Path) -> None:
    """Give `path` a time that no clock's grain can hide."""
    when = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(when, when))


def test_nothing_changed_nothing_read(start: Start) -> None:
    assert start.names() is None
    start.record()
    assert start.names() == start.names() == NAMES


def change_text(start: Start) -> None:
    (start.folder / "one.yaml").write_text(ONE + "\n# more\n")


def change_with_the_same_size(start: Start) -> None:
    (start.folder / "one.yaml").write_text(ONE.replace("speed: 7", "speed: 6"))
    later(start.folder / "one.yaml")


def change_schema(start: Start) -> None:
    later(start.folder / "schema" / "lab-model.schema.json")


def add_file(start: Start) -> None:
    (start.folder / "two.yaml").write_text("")


def add_in_new_folder(start: Start) -> None:
    (start.folder / "deeper").mkdir()
    (start.folder / "deeper" / "two.yaml").write_text("")


def remove_file(start: Start) -> None:
    (start.folder / "one.yaml").unlink()


def remove_folder(start: Start) -> None:
    start.folder.rename(start.folder.with_name("elsewhere"))


def install_something(start: Start) -> None:
    (start.folder.parent / "imports" / "new.dist-info").mkdir()
    later(start.folder.parent / "imports")


def make_missing_import_folder(start: Start) -> None:
    (start.folder.parent / "missing").mkdir()


def lengthen_sys_path(start: Start) -> None:
    sys.path.append(str(start.folder.parent))


def reorder_sys_path(_: Start) -> None:
    sys.path.reverse()


def edit_plugin(start: Start) -> None:
    start.plugin.write_text("# more")


def remove_plugin(start: Start) -> None:
    start.plugin.unlink()


def remove_index(start: Start) -> None:
    start.index.unlink()


def damage_index(start: Start) -> None:
    start.index.write_bytes(start.index.read_bytes()[:-1] + b"!")


def swap_index(start: Start) -> None:
    other = make(start.folder.parent / "other", one=ONE.replace("one-wider", "one-broad"))
    path = load_folder(other)[1]
    assert path is not None
    path.rename(start.index)


def remove_stamp(start: Start) -> None:
    start.stamp.unlink()


def truncate_stamp(start: Start) -> None:
    start.stamp.write_bytes(start.stamp.read_bytes()[:-5])


def empty_stamp(start: Start) -> None:
    start.stamp.write_bytes(b"")


def garbage_stamp(start: Start) -> None:
    start.stamp.write_bytes(os.urandom(300))


def folder_as_stamp(start: Start) -> None:
    start.stamp.unlink()
    start.stamp.mkdir()


def stamp_of_another_release(start: Start) -> None:
    start.stamp.write_bytes(pack(b"cpufw-stamp-1", "0.0.0", [{}]))


@pytest.mark.parametrize(
    "event",
    [
        change_text,
        change_with_the_same_size,
        change_schema,
        add_file,
        add_in_new_folder,
        remove_file,
        remove_folder,
        install_something,
        make_missing_import_folder,
        lengthen_sys_path,
        reorder_sys_path,
        edit_plugin,
        remove_plugin,
        remove_index,
        damage_index,
        swap_index,
        remove_stamp,
        truncate_stamp,
        empty_stamp,
        garbage_stamp,
        folder_as_stamp,
        stamp_of_another_release,
    ],
)
def test_the_stamp_is_stale_after(start: Start, event: Callable[[Start], None]) -> None:
    start.record()
    assert start.names() == NAMES
    event(start)
    assert start.names() is None


def touch_other_file(start: Start) -> None:
    (start.folder / "notes.txt").write_text("for people")


def lock_by_an_editor(start: Start) -> None:
    (start.folder / ".#one.yaml").symlink_to("someone@somewhere.1234")


@pytest.mark.parametrize("event", [touch_other_file, lock_by_an_editor])
def test_the_stamp_stays_fresh_after(start: Start, event: Callable[[Start], None]) -> None:
    start.record()
    event(start)
    assert start.names() == NAMES


def test_a_change_between_reading_and_recording_is_noticed(start: Start) -> None:
    seen = stamp.signature(str(start.folder))
    index, path = load_folder(start.folder)
    change_text(start)
    later(start.folder / "one.yaml")
    sources = {str(start.folder): seen}
    stamp.write_stamp((), stamp.environment(), sources, [(str(start.folder), str(path), index.key)])
    assert start.names() is None


def test_other_user_folders_have_another_stamp(start: Start) -> None:
    start.record(user=("/a",))
    assert start.names() is None
    assert start.names(("/a", "/b")) is None
    assert start.names(("/a",)) == NAMES


def test_the_same_stamp_is_not_written_twice(start: Start) -> None:
    start.record()
    os.utime(start.stamp, ns=(5, 5))
    start.record()
    assert start.stamp.stat().st_mtime_ns == 5


def test_a_stamp_that_cannot_be_written_is_no_error(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start.record()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    stamp.write_stamp((), stamp.environment(), {}, [])
    assert start.names() is None


def test_user_folders_go_given_then_environment_then_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CPUFW_CPUDEFS", "/b::/c:/a")
    assert stamp.user_folders(["/a", "/d"]) == ["/a", "/d", "/b", "/c"]
    home = tmp_path / "cpufw" / "cpudefs"
    home.mkdir(parents=True)
    assert stamp.user_folders(["/a"]) == ["/a", "/b", "/c", str(home)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CPUFW_CPUDEFS")
    assert stamp.user_folders(["mine/"]) == [str(tmp_path / "mine"), str(home)]
