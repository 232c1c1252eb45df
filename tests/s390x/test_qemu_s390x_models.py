"""tools/qemu_s390x_models.py, as a maintainer runs it."""

import shutil
from pathlib import Path

import pytest
from maintainer_tool import run_tool

from cpufw.definitions.compile import compile_folder

ROOT = Path(__file__).parents[2]
CPUDEFS = ROOT / "cpudefs"


def run(cpudefs: Path, *options: str) -> tuple[int, list[str]]:
    """Exit status and lines of the tool."""
    return run_tool("qemu_s390x_models.py", cpudefs, *options)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the s390x definitions to change."""
    shutil.copytree(CPUDEFS / "s390x", tmp_path / "s390x")
    return tmp_path


def test_our_definitions_do_not_differ() -> None:
    assert run(CPUDEFS) == (0, ["no difference"])


def test_each_difference_is_told(copy: Path) -> None:
    models, table = copy / "s390x" / "models", copy / "s390x" / "features.yaml"
    z13 = models / "z13.yaml"
    z13.write_text(z13.read_text().replace("vx,", "gs,"))
    (models / "gen16b.yaml").unlink()
    text = table.read_text().replace("    deprecated: true\n", "", 1)
    head, found, tail = text.partition("  - name: iacc2\n")
    assert found
    table.write_text(head + tail[tail.index("  - name: ") :])
    status, lines = run(copy)
    assert status == 1
    assert "feature iacc2 is missing: write it by hand" in lines
    assert "deprecated features: csske is in the reference only" in lines
    assert "model gen16b is missing" in lines
    assert "z13: features: vx is in the reference only" in lines
    assert "z13: features: gs is in the definition only" in lines


@pytest.mark.parametrize("name", ["z13", "gen15b", "max", "qemu"])
def test_write_makes_a_missing_model_the_same_again(copy: Path, name: str) -> None:
    models = copy / "s390x" / "models"
    before = {path: path.read_bytes() for path in models.iterdir()}
    (models / f"{name}.yaml").unlink()
    _, lines = run(copy, "--write")
    assert lines[0].startswith(f"{name}.yaml: new; write its description")
    assert {path: path.read_bytes() for path in models.iterdir() if path.stem != name} == {
        path: content for path, content in before.items() if path.stem != name
    }
    made = compile_folder(copy / "s390x", [CPUDEFS / "schema"])["s390x"].models[name]
    ours = compile_folder(CPUDEFS / "s390x", [CPUDEFS / "schema"])["s390x"].models[name]
    assert made["features"] == ours["features"]
    assert made["identity"]["static-base"] == ours["identity"]["static-base"]


def test_write_asks_for_the_identity_of_a_new_generation(copy: Path) -> None:
    (copy / "s390x" / "models" / "gen17b-base.yaml").unlink()
    _, lines = run(copy, "--write")
    asked = "gen17b-base.yaml: new; write its description and machine-type, generation, ga"
    assert lines[0] == asked
