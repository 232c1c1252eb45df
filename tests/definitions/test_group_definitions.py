"""Groups, `since` and `deprecated` in features files, and groups in models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cpufw.definitions.compile import compile_folder
from cpufw.errors import DefinitionError

SCHEMA = Path(__file__).parents[2] / "cpudefs" / "schema"
FEATURES = """\
kind: features
arch: lab
models: s390x-model
features:
  - {name: hash, place: 'facility:0', group: crypto, since: '1.1',
     description: Computes digests, source: Lab manual}
  - {name: cipher, place: 'facility:1', group: [crypto, fast], deprecated: true,
     description: Enciphers blocks, source: Lab manual}
"""
MODEL = """\
kind: s390x-model
name: one
description: The first
source: Lab manual
machine-type: 1000
generation: 7
ga: 1
static-base: one
features: [crypto]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "schema").mkdir()
    for name in ("features", "s390x-model"):
        shutil.copy(SCHEMA / f"{name}.schema.json", tmp_path / "schema")
    (tmp_path / "features.yaml").write_text(FEATURES)
    (tmp_path / "one.yaml").write_text(MODEL)
    return tmp_path


def test_a_model_may_name_groups(folder: Path) -> None:
    arch = compile_folder(folder, [folder / "schema"])["lab"]
    assert arch.models["one"]["features"].split() == ["hash", "cipher"]
    table = arch.table()
    assert list(table.groups["fast"]) == ["cipher"]
    assert (table["hash"].since, table["cipher"].deprecated) == ("1.1", True)


def test_a_group_cannot_be_called_like_a_feature(folder: Path) -> None:
    (folder / "features.yaml").write_text(FEATURES.replace("group: crypto,", "group: cipher,"))
    with pytest.raises(DefinitionError, match="'cipher' also names a group of features"):
        compile_folder(folder, [folder / "schema"])


def test_a_group_that_is_there_in_full_cannot_be_added(folder: Path) -> None:
    (folder / "two.yaml").write_text(
        "kind: s390x-model\nname: two\ndescription: The second\nbase: one\nadd: [crypto]\n"
    )
    with pytest.raises(DefinitionError, match="cannot add crypto: it is there already"):
        compile_folder(folder, [folder / "schema"])
