"""tools/qemu_arm_models.py: definitions are what QEMU answered; new ones can be imported."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from ruamel.yaml import YAML

from cpufw.definitions.compile import compile_folder
from cpufw.framework import default
from cpufw_arm.fields import field_of, layout
from cpufw_arm.registers import GROUPS

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests" / "data" / "qemu10"
CPUDEFS = ROOT / "cpudefs"


def load_tool() -> ModuleType:
    sys.path.insert(0, str(ROOT / "tools"))  # as where a script is: tools share a module
    spec = importlib.util.spec_from_file_location(
        "qemu_arm_models", ROOT / "tools" / "qemu_arm_models.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str]]:
    status: int = TOOL.main([*map(str, arguments)])
    return status, capsys.readouterr().out.splitlines()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Our Arm definitions, to be changed."""
    shutil.copytree(CPUDEFS / "arm", tmp_path / "arm")
    return tmp_path


def test_the_definitions_are_what_qemu_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, REFERENCE, CPUDEFS) == (0, ["no difference"])


def test_each_difference_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "arm" / "models" / "cortex-a57.yaml"
    text = path.read_text().replace("0x411fd070", "0x411fd071").replace(", pmu]", "]")
    path.write_text(text.replace("ID_AA64MMFR0_EL1: 0x1124", "ID_AA64MMFR0_EL1: 0x1125"))
    (copy / "arm" / "models" / "max.yaml").unlink()
    assert run(capsys, REFERENCE, copy) == (
        1,
        [
            "aarch64 cortex-a57: midr is 0x411fd071, in the reference 0x411fd070",
            "aarch64 cortex-a57: features: pmu is in the reference only",
            "aarch64 cortex-a57: ID_AA64MMFR0_EL1 is 0x1125, in the reference 0x1124",
            "aarch64 max is missing",
        ],
    )


def test_what_is_missing_is_written(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And no file that is there is touched."""
    models = copy / "arm" / "models"
    gone = ["max", "max-arm", "neoverse-n2", "cortex-m33", "arm1176"]
    for name in gone:
        (models / f"{name}.yaml").unlink()
    before = {path: path.read_bytes() for path in models.iterdir()}
    status, lines = run(capsys, REFERENCE, copy, "--write")
    assert (status, lines[-1]) == (0, "no difference")
    assert len(lines) == len(gone) + 1
    assert {path: path.read_bytes() for path in before} == before
    compiled = compile_folder(copy / "arm", [CPUDEFS / "schema"])
    assert {name: len(arch.models) for name, arch in compiled.items()} == {"aarch64": 47, "arm": 36}


def test_wrong_use_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        TOOL.main([str(tmp_path), str(CPUDEFS)])
    assert stopped.value.code == 2
    assert "has no arm-idregs.json" in capsys.readouterr().err


def test_places_are_fields_of_registers() -> None:
    """A misspelt field would never be switched."""
    states = {"ZCR_EL1.LEN", "SMCR_EL1.LEN"}  # what software writes, no ID register
    for feature in default().catalogue("aarch64").table:
        for place in feature.places:
            name = place.partition(":")[0]
            if "." in name and name not in states:
                known = field_of(name) or field_of(name, before_v7=True)
                assert known is not None, f"{feature.name}: {place}"


def test_definitions_name_what_there_is() -> None:
    table = default().catalogue("aarch64").table
    known = {
        register
        for models in TOOL.reference_facts(REFERENCE).values()
        for facts in models.values()
        for register in facts.registers
    }
    for path in sorted((CPUDEFS / "arm" / "models").glob("*.yaml")):
        document = YAML(typ="safe").load(path)
        for name in document.get("optional", []):
            assert name in table, f"{path.name}: {name}"
            assert name not in document["features"], f"{path.name}: {name}"
        for group in GROUPS:
            assert set(document.get(group, {})) <= known, path.name


def test_layouts_have_each_bit_once() -> None:
    for register in ("ID_AA64PFR0_EL1", "ID_AA64SMFR0_EL1", "CTR_EL0", "MVFR1", "PMCEID0_EL0"):
        bits = [
            bit for field in layout(register) for bit in range(field.low, field.low + field.width)
        ]
        assert bits == list(range(64)), register
