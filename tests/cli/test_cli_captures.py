"""Commands about captured hosts: host --capture, verify, migrate-check."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command import cpufw, sentence

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
HASWELL = CAPTURES / "haswell-ep_runs-Haswell-v4_not-Broadwell-v4.yaml"
CASCADE = CAPTURES / "cascade-lake_runs-Cascadelake-Server-v5_not-Icelake-Server-v1.yaml"
ICE = CAPTURES / "ice-lake-sp_runs-Icelake-Server-v6_not-SapphireRapids-v1.yaml"


# --- host --capture -----------------------------------------------------------------------


@pytest.mark.kvm
def test_the_capture_in_a_file_is_the_one_that_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "here.yaml"
    written, printed = cpufw("host", "--capture", path), cpufw("host", "--capture", "-")
    assert (written.returncode, written.stdout, written.stderr) == (0, "", "")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert path.read_text() == printed.stdout
    lines = printed.stdout.splitlines()
    assert lines[:2] == ["kind: host-capture", "schema: 1"]
    assert lines[-1] == "..."
    assert f"kernel: {os.uname().release}" in lines


@pytest.mark.kvm
def test_a_capture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "none" / "here.yaml"
    said = sentence(cpufw("host", "--capture", target), 1)
    assert said == f"{target} cannot be written: there is no folder {target.parent}"
    said = sentence(cpufw("host", "--capture", tmp_path), 1)
    assert said == f"{tmp_path} is not a file; to print the capture give -"


@pytest.mark.kvm
def test_a_guest_can_stay_on_the_host_that_was_captured(tmp_path: Path) -> None:
    path = tmp_path / "here.yaml"
    cpufw("host", "--capture", path)
    done = cpufw("migrate-check", "--from", path, "--to", path, "--cpu", "pentium")
    assert done.returncode == 0, done.stdout


def test_an_architecture_that_is_not_captured_is_a_sentence() -> None:
    said = sentence(cpufw("host", "--arch", "sparc64", "--capture", "-"), 1)
    assert "architecture 'sparc64' is not known" in said


# --- verify -------------------------------------------------------------------------------


@pytest.mark.kvm
def test_verify_in_both_formats() -> None:
    as_json, as_text = (cpufw("verify", "Haswell-v4", "--format", f) for f in ("json", "text"))
    told = json.loads(as_json.stdout)
    assert as_json.returncode == as_text.returncode == (0 if told["same"] else 1)
    assert told["accelerator"] == "kvm"
    assert sorted(told["granted"] + told["unavailable"]) == sorted(told["requested"])
    head, *blocks = as_text.stdout.split("\n\n")
    assert head.startswith(f"Haswell-v4 on kvm: {len(told['requested'])} features requested, ")
    assert len(blocks) == len(told["words"])
    for block, word in zip(blocks, told["words"], strict=True):
        name, requested, granted, marks, *_ = block.splitlines()
        assert name == word["word"]
        at = requested.index("0")
        for column, mark in enumerate(marks):
            differs = requested[column] != granted[column] if column >= at else False
            assert (mark == "^") == (differs and requested[column] in "01")
        digits = requested[13:].split("  ")[0].replace(" ", "")
        assert int(digits, 2) == word["requested"]


def test_verify_refuses_what_it_does_not_know() -> None:
    assert "did you mean Haswell" in sentence(cpufw("verify", "Haswel"), 1)


# --- migrate-check ------------------------------------------------------------------------


def test_a_guest_that_can_go() -> None:
    done = cpufw("migrate-check", "--from", HASWELL, "--to", CASCADE, "--cpu", "Haswell-v4")
    assert (done.returncode, done.stderr) == (0, "")
    heading, row, *_ = done.stdout.splitlines()
    assert heading.split() == ["CPU", "FROM", "TO", "CAN", "GO", "BECAUSE", "OF"]
    assert row.split() == ["Haswell-v4", HASWELL.stem, CASCADE.stem, "yes"]


def test_guests_and_targets_in_one_report() -> None:
    done = cpufw(
        "migrate-check", "--from", ICE, "--to", CASCADE, HASWELL,
        "--cpu", "Icelake-Server-v6", "--cpu", "Haswell-v4,phys-bits=40",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    rows = [line.split() for line in done.stdout.splitlines()[1:5]]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("Icelake-Server-v6", CASCADE.stem, "no"),
        ("Icelake-Server-v6", HASWELL.stem, "no"),
        ("Haswell-v4,phys-bits=40", CASCADE.stem, "yes"),
        ("Haswell-v4,phys-bits=40", HASWELL.stem, "no"),  # its TSC differs and cannot be scaled
    ]
    assert rows[3][4:] == ["tsc-frequency"]
    assert "avx512vbmi (7.0.ECX:1): " in done.stdout
    assert "2294686 kHz" in done.stdout


def test_the_report_as_json() -> None:
    done = cpufw(
        "migrate-check", "--from", ICE, "--to", CASCADE, "--cpu", "Icelake-Server-v6",
        "--format", "json",
    )  # fmt: skip
    assert done.returncode == 1
    (told,) = json.loads(done.stdout)
    assert (told["cpu"], told["to"], told["verdict"]) == ("Icelake-Server-v6", CASCADE.stem, "no")
    found = {each["subject"]: each for each in told["findings"]}
    assert found["avx512vbmi"]["aspect"] == "CPUID"
    assert found["avx512vbmi"]["place"] == "7.0.ECX:1"
    assert found["avx512vbmi"]["verdict"] == "no"
    assert found["taa-no"]["aspect"] == "MSR"


def test_hosts_in_other_programs_formats_are_taken_as_well() -> None:
    dumps = CAPTURES / "dumps"
    done = cpufw(
        "migrate-check", "--from", dumps / "haswell-ep.capabilities.xml",
        "--to", dumps / "cascade-lake.domcapabilities.xml", "--cpu", "Haswell-v2",
    )  # fmt: skip
    assert done.returncode == 1
    assert "haswell-ep.capabilities" in done.stdout
    assert "unknown" in done.stdout  # domcapabilities does not tell the TSC


def test_a_capture_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "cut.yaml"
    broken.write_text(HASWELL.read_text()[:2000])
    said = sentence(
        cpufw("migrate-check", "--from", HASWELL, "--to", broken, "--cpu", "Haswell"), 1
    )
    assert said.startswith(f"{broken}:")
    assert "it is cut off" in said


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("--from", ["--to", HASWELL, "--cpu", "Haswell"]),
        ("--to", ["--from", HASWELL, "--cpu", "Haswell"]),
        ("--cpu", ["--from", HASWELL, "--to", HASWELL]),
    ],
)
def test_what_is_not_given_is_asked_for(missing: str, arguments: list[str | Path]) -> None:
    said = sentence(cpufw("migrate-check", *arguments), 2)
    assert missing in said
    assert "see cpufw migrate-check --help" in said
