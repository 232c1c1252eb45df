"""QEMU's machine types: what a model's name and its properties mean on each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cpufw.core.cpu import CPUState
from cpufw.core.model import AliasRule
from cpufw.errors import NotFoundError, PropertyError, UsageError
from cpufw.framework import Framework

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "cli"))
sys.path.insert(0, str(ROOT / "tools"))

from command import cpufw, sentence  # noqa: E402
from qemu_machines import main as qemu_machines  # noqa: E402


def boot_cpu(framework: Framework, machine: str, cpu: str) -> CPUState:
    with framework.machine(machine, cpu=cpu, accel=None) as built:
        return built.cpus()[0]


def expanded(framework: Framework, machine: str, cpu: str) -> dict[str, Any]:
    with framework.machine(machine, cpu=cpu, accel=None) as built:
        expansion = built.cpus()[0].expansion
        assert expansion is not None
        return {**expansion.identity, "features": set(expansion.features)}


def test_machine_types_are_those_of_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    status = qemu_machines([str(ROOT / "tests/data/qemu10"), str(ROOT / "cpudefs/x86")])
    assert (status, capsys.readouterr().out) == (0, "")


def test_a_wrong_figure_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "cpudefs/x86/machines.yaml").read_text()
    (tmp_path / "machines.yaml").write_text(
        text.replace("Haswell: {stepping: 1}", "Haswell: {stepping: 2}")
    )
    status = qemu_machines([str(ROOT / "tests/data/qemu10"), str(tmp_path)])
    found = capsys.readouterr().out.splitlines()
    assert status == 1
    assert "pc-q35-2.6: Haswell-x86_64-cpu.stepping is 2, in the reference 1" in found


@pytest.mark.parametrize("machine", ["pc-q35-2.4", "pc-i440fx-2.4", "pc-q35-9.0"])
def test_every_property_that_a_machine_type_sets_is_one(framework: Framework, machine: str) -> None:
    known: dict[str, Any] = {}
    for each in framework.machine_type(machine).compat:
        name = "Haswell-x86_64-cpu" if each.type_name == "x86_64-cpu" else each.type_name
        spec = framework.cpu_class(name).properties.get(each.name)
        assert spec is not None, each
        known[each.name] = spec.parse(each.value, name)
    assert known["guest-phys-bits"] == 0


@pytest.mark.parametrize(
    ("machine", "rule", "stands_for"),
    [
        ("q35", AliasRule.FIRST, "Haswell-v1"),
        ("pc-q35-10.0", AliasRule.FIRST, "Haswell-v1"),
        ("pc-i440fx-4.1", AliasRule.FIRST, "Haswell-v1"),
        ("pc-i440fx-4.0", AliasRule.NONE, None),
        ("pc-q35-4.0.1", AliasRule.NONE, None),
        ("isapc", AliasRule.NONE, None),
        ("microvm", AliasRule.NEWEST, "Haswell-v4"),
    ],
)
def test_what_a_name_stands_for(
    framework: Framework, machine: str, rule: AliasRule, stands_for: str | None
) -> None:
    assert framework.machine_type(machine).alias_rule is rule
    expansion = boot_cpu_expansion(framework, machine)
    assert expansion.model.alias_of == stands_for


def boot_cpu_expansion(framework: Framework, machine: str) -> Any:
    with framework.machine(machine, cpu="Haswell", accel=None) as built:
        return built.cpus()[0].expansion


def test_an_old_machine_type_changes_the_model_but_not_its_versions(framework: Framework) -> None:
    old, first = (expanded(framework, "pc-q35-2.6", name) for name in ("Haswell", "Haswell-v1"))
    assert (old["stepping"], first["stepping"]) == (1, 4)
    assert old["l3-cache"] is first["l3-cache"] is False  # what it sets on every CPU
    assert expanded(framework, "q35", "Haswell")["stepping"] == 4
    assert "mpx" in expanded(framework, "pc-q35-3.1", "Skylake-Server")["features"]
    assert "mpx" not in expanded(framework, "pc-q35-4.0", "Skylake-Server")["features"]


def test_the_user_goes_before_the_machine_type(framework: Framework) -> None:
    found = expanded(framework, "pc-q35-2.6", "Haswell,stepping=3,l3-cache=on")
    assert (found["stepping"], found["l3-cache"]) == (3, True)
    assert "npt" in expanded(framework, "pc-q35-3.1", "EPYC,+npt")["features"]


def test_topologies_have_the_machine_types_limit(framework: Framework) -> None:
    assert framework.machine_type("pc-q35-2.6").max_cpus == 255
    assert framework.machine_type("q35").max_cpus == 4096
    with pytest.raises(Exception, match="255"):
        framework.machine("pc-q35-2.6", cpu="Haswell", smp="256")


def test_pc_stays_the_machine_that_runs_guests(framework: Framework) -> None:
    assert framework.machine_type("pc").accel == "kvm"
    assert framework.machine_type("q35").accel is None


def test_a_name_that_no_machine_type_has(framework: Framework) -> None:
    with pytest.raises(NotFoundError, match=r"did you mean pc-q35-2\.7"):
        framework.machine_type("pc-q35-2.77")


def test_those_that_are_no_pc_run_no_guest(framework: Framework) -> None:
    with pytest.raises(UsageError, match="microvm only describes CPUs; to run a guest use pc"):
        framework.machine("microvm", cpu="Haswell", kernel="/dev/null")
    done = cpufw("run", "--machine", "isapc", "/dev/null")
    assert "machine type isapc only describes CPUs; to run a guest use pc" in sentence(done, 2)


@pytest.mark.kvm
def test_guests_run_under_the_rules_of_an_old_pc(framework: Framework) -> None:
    demo = framework.machine_type("pc").demo
    assert demo is not None
    with framework.machine("pc-q35-2.6", cpu="Haswell,check=off", **demo) as machine:
        (cpu,) = machine.cpus()
        assert cpu.expand(machine).identity["l3-cache"] is False
        machine.start()
        assert machine.status == "running"


def test_show_and_cpuid_take_them() -> None:
    shown = cpufw("show", "Haswell", "--machine", "pc-q35-2.6")
    assert "stepping: 1\n" in shown.stdout
    assert "l3-cache: false\n" in shown.stdout
    assert "alias-of" not in shown.stdout
    assert "alias-of: Haswell-v4\n" in cpufw("show", "Haswell", "--machine", "microvm").stdout
    raw = cpufw("cpuid", "Haswell", "--machine", "pc-q35-2.6", "--format", "raw").stdout
    assert "0x00000001 0x00: eax=0x000306c1" in raw


@pytest.mark.parametrize(("command", "machine"), [("cpuid", "q35"), ("show", "none")])
def test_what_max_is_only_an_accelerator_can_say(command: str, machine: str) -> None:
    said = sentence(cpufw(command, "max", "--machine", machine), 1)
    assert said == (
        "CPU model 'max' is what the host's accelerator gives: add --machine pc or --accel kvm"
    )


# --- definitions ---------------------------------------------------------------------------

GOOD = """\
kind: machines
arch: x86_64
source: a test
machines:
  - name: board
    alias: plank
    description: A machine type of ours
    versions: ['1.9', '1.10']
    default-cpu: Haswell
    max-cpus: {'1.9': 2, '1.10': 4}
    names: newest
compat:
  - version: '1.9'
    set:
      x86_64-cpu: {l3-cache: off}
      Haswell: {stepping: 9}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "machines.yaml").write_text(GOOD)
    return tmp_path


def test_a_folder_of_the_users_may_bring_machine_types(folder: Path) -> None:
    framework = Framework([str(folder)])
    assert framework.machine_type("plank").name == "board-1.10"
    old = framework.machine_type("board-1.9")
    assert (old.max_cpus, old.alias, old.alias_rule) == (2, None, AliasRule.NEWEST)
    assert expanded(framework, "board-1.9", "Haswell")["stepping"] == 9
    assert boot_cpu(framework, "board-1.10", "Haswell").model.name == "Haswell"


@pytest.mark.parametrize(
    ("before", "after", "line", "says"),
    [
        ("'1.9', '1.10'", "'1.10', '1.9'", 8, "versions are not in order, oldest first"),
        (
            "default-cpu: Haswell",
            "default-cpu: Haswel",
            9,
            "'Haswel' is not known; did you mean Haswell",
        ),
        ("{'1.9': 2, ", "{", 10, "version 1.9 has no value"),
        ("names: newest", "names: oldest", 11, "oldest"),
        (
            "      Haswell: {",
            "      Hazwell: {",
            16,
            "'Hazwell' is not known; did you mean Haswell",
        ),
        ("arch: x86_64", "arch: x86_65", 2, "did you mean x86_64"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    folder: Path, framework: Framework, before: str, after: str, line: int, says: str
) -> None:
    assert before in GOOD
    (folder / "machines.yaml").write_text(GOOD.replace(before, after))
    _, problems = framework.check([folder])
    assert len(problems) == 1
    assert f":{line}:" in str(problems[0])
    assert says in str(problems[0])


def test_a_property_that_cannot_be(folder: Path) -> None:
    (folder / "machines.yaml").write_text(GOOD.replace("stepping: 9", "stepping: 99"))
    with pytest.raises(PropertyError, match="stepping=99 is out of range"):
        Framework([str(folder)]).machine("board-1.9", cpu="Haswell", accel=None)
