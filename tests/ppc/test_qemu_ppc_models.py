"""tools/qemu_ppc_models.py, as a maintainer runs it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from maintainer_tool import run_tool

ROOT = Path(__file__).parents[2]
CPUDEFS = ROOT / "cpudefs"


def run(cpudefs: Path, *options: str) -> tuple[int, list[str]]:
    """Exit status and lines of the tool."""
    return run_tool("qemu_ppc_models.py", cpudefs, *options)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the PowerPC definitions to change."""
    shutil.copytree(CPUDEFS / "ppc", tmp_path / "ppc")
    return tmp_path


def test_our_definitions_do_not_differ() -> None:
    assert run(CPUDEFS) == (0, ["no difference"])


def test_each_difference_is_told(copy: Path) -> None:
    models = copy / "ppc" / "models"
    power9 = models / "POWER9.yaml"
    text = power9.read_text().replace("0x004e1200", "0x004e1201").replace("[power9]", "[power-9]")
    text = text.replace(", vcrypto", "").replace("power8, power9]", "power8]")
    power9.write_text(text.replace("cores: [spapr]", "cores: [spapr, powernv]"))
    g2 = models / "G2.yaml"
    g2.write_text(g2.read_text().replace("hash32-swtlb", "hash32").replace("g2ls", "g2lx"))
    (models / "604.yaml").unlink()
    status, lines = run(copy)
    assert status == 1
    assert "power9_v2.0: pvr is 0x004e1201, in the reference 0x004e1200" in lines
    assert "power9_v2.0: cores: powernv is in the definition only" in lines
    assert "power9_v2.2: aliases: power9 is in the reference only" in lines
    assert "power9_v2.2: aliases: power-9 is in the definition only" in lines
    assert "power9_v2.2: features: vcrypto was measured and is not in the definition" in lines
    assert (
        "power9_v2.2: compat-modes are [power6, power7, power8], "
        "measured [power6, power7, power8, power9]"
    ) in lines
    assert "g2: mmu is hash32, measured hash32-swtlb" in lines
    assert "model g2lx is ours alone" in lines
    assert {"model g2ls is missing", "model 604 is missing"} <= set(lines)


def test_what_is_missing_is_written(copy: Path) -> None:
    models = copy / "ppc" / "models"
    power9, power8 = models / "POWER9.yaml", models / "POWER8.yaml"
    whole = power9.read_text()
    power9.write_text("".join(f"{line}\n" for line in whole.splitlines()[:-1]))
    before = power8.read_text()
    power8.unlink()
    status, lines = run(copy, "--write")
    assert (status, lines[-1]) == (0, "no difference")
    assert power9.read_text() == whole
    described = [line for line in before.splitlines() if not line.startswith(("desc", "source"))]
    written = power8.read_text().splitlines()
    assert [line for line in written if not line.startswith(("desc", "source"))] == described
