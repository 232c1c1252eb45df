"""The compiled index: what was packed comes back whole, or not at all."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cpufw.definitions.index import Index, dump, pack, unpack, write_atomically

from .workshop import compiled, make

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(PLAIN, max_size=4), st.data())
def test_any_damage_is_noticed(parts: list[object], data: st.DataObject) -> None:
    content = pack(b"magic", "key", parts)
    good = unpack(b"magic", content)
    assert good is not None
    assert (good[0], len(good[1])) == ("key", len(parts))
    assert unpack(b"other", content) is None
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[at] ^= data.draw(st.integers(1, 255))
    assert unpack(b"magic", bytes(flipped)) is None
    assert unpack(b"magic", content[:at]) is None
    assert unpack(b"magic", content + data.draw(st.binary(min_size=1, max_size=4))) is None


@given(st.binary(max_size=80))
def test_anything_else_is_no_index(content: bytes) -> None:
    assert Index.parse(content) is None
    assert Index.parse(b"cpufw-index-1 " + content) is None


def test_an_index_holds_the_definitions(tmp_path: Path) -> None:
    arch = compiled(make(tmp_path / "lab"))
    index = Index.parse(dump({"lab": arch}, "key"))
    assert index is not None
    assert index.key == "key"
    assert index.compiled() == {"lab": arch}
    rows = {row["name"]: row for row in index.listing()}
    assert list(rows) == list(arch.models)
    assert rows["one-wider"] == {
        "name": "one-wider",
        "type": "one-wider-lab-cpu",
        "alias_of": "one-v2",
        "arch": "lab",
        "vendor": "us",
        "description": "The first; wider than before",
        "deprecated": False,
    }


def test_an_index_of_too_few_parts_is_no_index() -> None:
    assert Index.parse(pack(b"cpufw-index-1", "key", [[]])) is None


def test_a_file_that_is_not_there_or_no_file_is_no_index(tmp_path: Path) -> None:
    assert Index.load(tmp_path / "none") is None
    assert Index.load(tmp_path) is None


def test_writing_leaves_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    path.unlink()
    path.mkdir()  # so that the rename fails
    try:
        write_atomically(path, b"newer")
    except OSError:
        assert [each.name for each in path.parent.iterdir()] == ["file"]
    else:
        raise AssertionError("a folder was overwritten")
