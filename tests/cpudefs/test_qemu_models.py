"""tools/qemu_models.py, as a maintainer runs it."""

import shutil
from pathlib import Path

import pytest
from maintainer_tool import run_tool

from .definitions import CPUDEFS, load, versions_of


def run(cpudefs: Path, *options: str) -> tuple[int, list[str]]:
    """Exit status and lines of the tool."""
    return run_tool("qemu_models.py", cpudefs, *options)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the x86 definitions to change."""
    shutil.copytree(CPUDEFS / "x86", tmp_path / "x86")
    return tmp_path


def test_our_definitions_do_not_differ() -> None:
    assert run(CPUDEFS) == (0, ["no difference"])


def test_each_difference_is_told(copy: Path) -> None:
    haswell = copy / "x86" / "models" / "Haswell.yaml"
    text = haswell.read_text().replace("stepping: 4", "stepping: 5").replace(" pcid,", "")
    haswell.write_text(text.replace("alias: Haswell-IBRS", "alias: Haswell-Spectre"))
    (copy / "x86" / "models" / "phenom.yaml").unlink()
    status, lines = run(copy)
    assert status == 1
    assert "Haswell-v1: stepping is 5, in the reference 4" in lines
    assert "Haswell-v4: features: pcid is in the reference only" in lines
    assert "Haswell-v3: alias is Haswell-Spectre, in the reference Haswell-IBRS" in lines
    assert "family phenom is missing" in lines


def test_a_missing_feature_is_told(copy: Path) -> None:
    table = copy / "x86" / "features.yaml"
    head, found, tail = table.read_text().partition("  - name: movbe\n")
    assert found
    table.write_text(head + tail[tail.index("  - name: ") :])
    status, lines = run(copy)
    assert status == 1
    assert "feature movbe (1.ECX:22) is missing: write it by hand" in lines


@pytest.mark.parametrize("family", ["Icelake-Server", "YongFeng", "486"])
def test_write_makes_a_missing_family_the_same_again(copy: Path, family: str) -> None:
    path = copy / "x86" / "models" / f"{family}.yaml"
    before = load(path)
    path.unlink()
    status, lines = run(copy, "--write")
    assert (status, lines[-1]) == (0, "no difference")
    made = load(path)
    assert made["features"] == before["features"]
    assert [(v.name, v.alias, v.features, v.vmx) for v in versions_of(made)] == [
        (v.name, v.alias, v.features, v.vmx) for v in versions_of(before)
    ]


def test_write_appends_a_missing_version_and_changes_no_other_line(copy: Path) -> None:
    path = copy / "x86" / "models" / "Haswell.yaml"
    text = path.read_text()
    shortened = "# ours to keep\n" + text[: text.index("  - version: 4")]
    path.write_text(shortened)
    status, lines = run(copy, "--write")
    assert (status, lines) == (0, ["Haswell.yaml: version 4 appended", "no difference"])
    assert path.read_text().startswith(shortened)


def test_write_leaves_a_complete_tree_alone(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*.yaml")}
    assert run(copy, "--write") == (0, ["no difference"])
    assert {path: path.read_bytes() for path in copy.rglob("*.yaml")} == before


def test_write_asks_for_caches_to_be_measured(copy: Path) -> None:
    (copy / "x86" / "models" / "EPYC-Milan.yaml").unlink()
    _, lines = run(copy, "--write")
    assert "EPYC-Milan.yaml: version 2 has its own caches: measure and add them" in lines
