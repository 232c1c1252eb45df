"""Commands that look at models: list-models, show, cpuid, host, validate, plugins, completion."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import cpufw, environment, sentence
from ruamel.yaml import YAML

from cpufw.framework import Framework

OWN_MODEL = """\
kind: x86-model
name: Fleet
description: What our oldest host can do
source: made for this test
base: Haswell-v4
remove: [avx2]
"""


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cpudefs"
    folder.mkdir()
    (folder / "Fleet.yaml").write_text(OWN_MODEL)
    return folder


def listed(*arguments: str) -> list[str]:
    done = cpufw("list-models", "--format", "names", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


# --- list-models --------------------------------------------------------------------------


def test_every_format_lists_the_same_models(framework: Framework) -> None:
    names = listed()
    rows = json.loads(cpufw("list-models", "--format", "json").stdout)
    assert [row["name"] for row in rows] == names
    kinds = [(row["arch"], row["name"]) for row in rows]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == {
        (arch, model.name)
        for arch in framework.architectures
        for model in framework.catalogue(arch)
    }
    table = cpufw("list-models").stdout.splitlines()
    assert table[0].split()[0] == "NAME"
    assert [line.split()[0] for line in table[1:]] == names


@pytest.mark.parametrize(
    ("pattern", "some", "none"),
    [
        ("hasw", ["Haswell", "Haswell-noTSX-IBRS"], "EPYC"),
        ("Haswell-v?", ["Haswell-v1", "Haswell-v4"], "Haswell"),
        ("EPYC-[RM]*", ["EPYC-Rome", "EPYC-Milan-v1"], "EPYC-Genoa"),
    ],
)
def test_pattern_is_part_of_a_name_or_a_glob(pattern: str, some: list[str], none: str) -> None:
    names = listed(pattern)
    assert set(some) <= set(names)
    assert none not in names


def test_arch_narrows_the_list() -> None:
    assert listed("--arch", "x86_64", "hasw") == listed("hasw")


def test_own_models_are_listed_from_every_place(own_folder: Path) -> None:
    assert listed("--cpudefs", str(own_folder), "Fleet") == ["Fleet"]
    done = cpufw("list-models", "Fleet", CPUFW_CPUDEFS=str(own_folder))
    assert done.returncode == 0
    assert "What our oldest host can do" in done.stdout
    assert "Fleet" in sentence(cpufw("list-models", "Fleet"), 1)


@pytest.mark.kvm
def test_usable_says_what_kvm_lacks(framework: Framework) -> None:
    done = cpufw("list-models", "--usable", "--format", "json", "--arch", "x86_64")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    with framework.machine("pc", cpu="Haswell", memory="2M") as machine:
        [cpu] = machine.cpus()
        supported = machine.accelerator.supported_features(cpu.requested.table)  # type: ignore
        missing = set(cpu.requested - supported)
    assert set(rows["Haswell"]["unavailable_features"]) == missing


@pytest.mark.kvm
def test_host_names_features_and_a_model_that_runs_here(framework: Framework) -> None:
    told = json.loads(cpufw("host", "--format", "json").stdout)
    assert told["accelerator"] == "kvm"
    assert told["capabilities"]["KVM_CAP_USER_MEMORY"]
    assert {"fpu", "tsc", "cx8"} <= set(told["features"])
    best = told["best-model"]
    assert set(framework.find_model(best).model.features) <= set(told["features"])
    text = cpufw("host").stdout
    assert f"best model   {best} " in text


# --- show ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["Haswell", "EPYC-Genoa-v1", "486", "Haswell,+pdpe1gb,-avx2"])
def test_show_prints_yaml_that_reads_back_as_its_json(model: str) -> None:
    shown = cpufw("show", model)
    assert (shown.returncode, shown.stderr) == (0, "")
    data = YAML(typ="safe").load(shown.stdout)
    assert data == json.loads(cpufw("show", model, "--format", "json").stdout)
    assert data["name"] == model.split(",")[0]
    assert data["type"] == f"{data['name']}-x86_64-cpu"


def test_show_applies_features_and_properties() -> None:
    plain = json.loads(cpufw("show", "Haswell", "--format", "json").stdout)
    changed = json.loads(
        cpufw("show", "Haswell,+pdpe1gb,-aes,stepping=9", "--format", "json").stdout
    )
    assert set(changed["features"]) - set(plain["features"]) == {"pdpe1gb"}
    assert set(plain["features"]) - set(changed["features"]) == {"aes"}
    assert (plain["stepping"], changed["stepping"]) == (4, 9)


@pytest.mark.kvm
def test_show_of_the_host_needs_a_machine() -> None:
    shown = json.loads(cpufw("show", "host", "--machine", "pc", "--format", "json").stdout)
    told = json.loads(cpufw("host", "--format", "json").stdout)
    assert shown["vendor"] == told["identity"]["vendor"]
    assert set(shown["features"]) <= set(told["features"])


# --- cpuid --------------------------------------------------------------------------------


def test_cpuid_formats_show_the_same_leaves() -> None:
    leaves = json.loads(cpufw("cpuid", "Haswell", "--format", "json").stdout)
    by_place = {(leaf["function"], leaf["index"]): leaf for leaf in leaves}
    registers = ("eax", "ebx", "ecx", "edx")
    vendor = b"".join(by_place[0, 0][name].to_bytes(4, "little") for name in ("ebx", "edx", "ecx"))
    assert vendor == b"GenuineIntel"
    assert by_place[1, 0]["eax"] == 0x306C4  # family 6, model 60, stepping 4
    table = cpufw("cpuid", "Haswell").stdout.splitlines()[1:]
    assert [[int(cell, 16) for cell in line.split()] for line in table] == [
        [leaf["function"], leaf["index"], *(leaf[name] for name in registers)] for leaf in leaves
    ]


def test_cpuid_of_a_slot_has_its_apic_id() -> None:
    smp = "1,maxcpus=12,sockets=2,cores=3,threads=2"
    for slot, apic_id in ((0, 0), (1, 1), (4, 4), (6, 8), (11, 13)):
        done = cpufw("cpuid", "Haswell", "--smp", smp, "--slot", str(slot), "--format", "json")
        assert done.returncode == 0, done.stderr
        [first] = [leaf for leaf in json.loads(done.stdout) if leaf["function"] == 1]
        assert first["ebx"] >> 24 == apic_id
        assert first["ebx"] >> 16 & 0xFF >= 6  # threads of a package


@pytest.mark.skipif(not shutil.which("cpuid"), reason="needs Debian's package cpuid")
@pytest.mark.parametrize("model", ["Haswell", "EPYC-Milan", "qemu64"])
def test_raw_format_is_read_by_the_cpuid_tool(model: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_text(cpufw("cpuid", model, "--format", "raw").stdout)
    decoded = subprocess.run(["cpuid", "-f", raw], capture_output=True, text=True, check=True)
    shown = json.loads(cpufw("show", model, "--format", "json").stdout)
    assert f'vendor_id = "{shown["vendor"]}"' in decoded.stdout
    assert f'brand = "{shown["model-id"]}"' in decoded.stdout
    assert f"stepping id     = {shown['stepping']:#x}" in decoded.stdout
    again = subprocess.run(["cpuid", "-r", "-f", raw], capture_output=True, text=True, check=True)
    assert set(again.stdout.splitlines()) == set(raw.read_text().splitlines())


# --- validate -----------------------------------------------------------------------------


def test_validate_accepts_what_is_in_use_and_one_s_own(own_folder: Path) -> None:
    done = cpufw("validate")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(" files, no problems\n")
    for path in (own_folder, own_folder / "Fleet.yaml"):
        done = cpufw("validate", path)
        assert (done.returncode, done.stdout) == (0, "1 file, no problems\n"), done.stdout


def test_validate_names_every_problem_with_its_place(own_folder: Path) -> None:
    key, feature = own_folder / "Key.yaml", own_folder / "Feature.yaml"
    key.write_text(OWN_MODEL.replace("Fleet", "Key").replace("source", "sauce"))
    feature.write_text(OWN_MODEL.replace("Fleet", "Feature").replace("avx2", "avx9"))
    done = cpufw("validate", own_folder)
    assert done.returncode == 1
    *problems, summary = done.stdout.splitlines()
    assert summary == f"3 files, {len(problems)} problems"
    assert any(line.startswith(f"{key}:4:") and "sauce" in line for line in problems), problems
    told = json.loads(cpufw("validate", "--format", "json", own_folder).stdout)
    assert told["files"] == 3
    assert [f"{p['file']}:{p['line']}:{p['column']}: {p['message']}" for p in told["problems"]] == (
        problems
    )
    done = cpufw("validate", feature)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{feature}:6:")
    assert "avx9" in done.stdout


def test_validate_of_a_folder_with_no_definitions_is_an_error(tmp_path: Path) -> None:
    assert str(tmp_path) in sentence(cpufw("validate", tmp_path), 1)


def test_a_broken_folder_is_refused_and_the_rest_is_as_it_was(own_folder: Path) -> None:
    (own_folder / "Fleet.yaml").write_text("kind: x86-model\nname: [")
    done = cpufw("show", "Haswell", "--cpudefs", own_folder)
    assert done.returncode == 1
    assert f"{own_folder}/Fleet.yaml:2:" in done.stderr
    assert cpufw("show", "Haswell").returncode == 0


# --- plugins and completion ---------------------------------------------------------------


def test_plugins_are_listed_with_their_hooks() -> None:
    rows = json.loads(cpufw("plugins", "--format", "json").stdout)
    [x86] = [row for row in rows if row["name"] == "x86"]
    assert (x86["distribution"], x86["error"]) == ("cpufw", None)
    assert {"cpufw_architectures", "cpufw_machine_types"} <= set(x86["hooks"])
    assert "x86 " in cpufw("plugins").stdout
    assert cpufw("plugins", "--strict-plugins").returncode == 0


def completed(tmp_path: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    script = tmp_path / "completion.bash"
    script.write_text(cpufw("completion", "bash").stdout)
    check = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (check.returncode, check.stderr) == (0, "")
    line = " ".join(["cpufw", *words])
    text = f"""
        cpufw() {{ {sys.executable} -m cpufw "$@"; }}
        compopt() {{ :; }}
        source {script}
        COMP_WORDS=(cpufw {" ".join(word or "''" for word in words)})
        COMP_CWORD={len(words)} COMP_LINE="{line}" COMP_POINT={len(line)}
        $(complete -p cpufw | sed 's/.*-F \\([^ ]*\\).*/\\1/') cpufw "{words[-1]}" ""
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", text],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_options_models_and_files(tmp_path: Path) -> None:
    assert {"list-models", "run", "demo"} <= completed(tmp_path, "")
    assert completed(tmp_path, "list") == {"list-models"}
    assert {"--timeout", "--serial"} <= completed(tmp_path, "run", "--")
    assert completed(tmp_path, "run", "--entry-mode", "") >= {"real", "protected", "long"}
    assert completed(tmp_path, "show", "Haswell-no") >= {"Haswell-noTSX", "Haswell-noTSX-IBRS"}
    assert completed(tmp_path, "cpuid", "EPYC-Mil") >= {"EPYC-Milan", "EPYC-Milan-v1"}
    assert "Denverton" in completed(tmp_path, "run", "--cpu", "Denv")
    (tmp_path / "guest.elf").touch()
    assert completed(tmp_path, "run", "gue") == {"guest.elf"}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script_too(shell: str) -> None:
    done = cpufw("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "list-models" in done.stdout
