"""`cpufw export` and `cpufw import`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from command import command, cpufw, environment, sentence


def import_text(text: str | bytes, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`cpufw import -` with `text` as its input."""
    data = text.encode() if isinstance(text, str) else text
    done = subprocess.run(
        command("import", "-", *arguments),
        input=data,
        capture_output=True,
        timeout=100,
        env=environment(),
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_a_model_goes_out_and_comes_in(tmp_path: Path) -> None:
    for name in ("libvirt", "kubevirt", "firecracker"):
        exported = cpufw("export", "Haswell-v4,-rdrand", "--to", name)
        assert exported.returncode == 0
        file = tmp_path / name
        file.write_text(exported.stdout)
        assert cpufw("import", file).stdout == "Haswell-v4,-rdrand\n"


def test_what_is_imported_is_what_other_commands_take() -> None:
    imported = import_text("<cpu mode='custom'><model>Penryn</model></cpu>").stdout.strip()
    shown = cpufw("show", imported, "--format=json")
    assert "vme" not in json.loads(shown.stdout)["features"]


def test_what_is_lost_is_a_warning_and_strictly_an_error() -> None:
    done = cpufw("export", "Haswell,stepping=2", "--to", "libvirt")
    assert done.returncode == 0
    assert done.stdout.startswith("<cpu ")
    assert done.stderr == (
        "cpufw: warning: Haswell,stepping=2: libvirt cannot express stepping=2\n"
    )
    strict = cpufw("export", "Haswell,stepping=2", "--to=libvirt", "--strict")
    assert sentence(strict, 1) == "Haswell,stepping=2: libvirt cannot express stepping=2"


def test_what_is_left_out_is_a_warning_and_strictly_an_error() -> None:
    xml = "<cpu><model>Skylake-Client-v4</model><feature name='cmt'/></cpu>"
    done = import_text(xml)
    assert (done.returncode, done.stdout) == (0, "Skylake-Client-v4\n")
    said = "standard input: feature cmt (require) is not known here and left out"
    assert done.stderr == f"cpufw: warning: {said}\n"
    assert sentence(import_text(xml, "--strict"), 1) == said


def test_json_tells_all_of_what_was_read() -> None:
    done = import_text("Haswell,-avx2,+invtsc,stepping=3,foo=1", "--format=json")
    assert json.loads(done.stdout) == {
        "cpu": "Haswell,+invtsc,-avx2,stepping=3",
        "arch": "x86_64",
        "format": "qemu",
        "model": "Haswell",
        "on": ["invtsc"],
        "off": ["avx2"],
        "properties": {"stepping": "3"},
        "notes": ["foo=1 is not known here and left out"],
    }


def test_the_host_is_this_hosts() -> None:
    answer = json.loads(import_text("<cpu mode='host-passthrough'/>", "--format=json").stdout)
    assert (answer["cpu"], answer["arch"]) == ("host", os.uname().machine)


def test_the_formats_are_listed() -> None:
    lines = cpufw("export", "--list").stdout.splitlines()
    assert lines[0].split() == ["FORMAT", "ARCHITECTURES", "DESCRIPTION"]
    names = {line.split()[0] for line in lines[1:]}
    assert {"libvirt", "qemu", "kubevirt", "kubevirt-node", "firecracker"} <= names


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["Haswell", "--to", "libvrt"], 1, "'libvrt' is not known; did you mean libvirt?"),
        (["Haswel", "--to", "qemu"], 1, "did you mean Haswell"),
        (["Haswell"], 2, "expected MODEL --to FORMAT, or --list"),
        (["--to", "qemu"], 2, "expected MODEL --to FORMAT, or --list"),
        (["host", "--to", "firecracker"], 1, "'host' needs an accelerator"),
        (["Haswell,+avx512f,-avx2", "--to", "qemu"], 1, "avx2"),
    ],
)
def test_bad_exports_are_one_sentence(arguments: list[str], status: int, said: str) -> None:
    assert said in sentence(cpufw("export", *arguments), status)


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("<cpu>\n<model>x</modle></cpu>", [], "standard input: line 2, column 11: this is not XML"),
        ("Haswel", [], "standard input: CPU model 'Haswel' is not known; did you mean Haswell"),
        ("one\ntwo\n", [], "standard input: this is none of the formats"),
        ("Haswell", ["--from", "kvm"], "format 'kvm' is not known"),
        ("Haswell", ["--arch", "x86"], "architecture 'x86' is not known; did you mean x86_64?"),
        (b"\xff\xfe<\0c\0p\0u\0/\0>\0", [], "standard input: byte 0 is not UTF-8"),
        ("<cpu mode='custom'><model>", ["--from", "firecracker"], "line 1, column 1: this is not"),
    ],
)
def test_bad_input_is_one_sentence(text: str | bytes, arguments: list[str], said: str) -> None:
    assert said in sentence(import_text(text, *arguments), 1)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.xml"
    assert sentence(cpufw("import", missing), 1) == f"{missing}: No such file or directory"


def test_no_more_is_read_than_a_cpu_can_need(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    with junk.open("wb") as file:
        file.truncate(1 << 30)
    assert "characters: this is not a CPU" in sentence(cpufw("import", junk), 1)
    assert "characters: this is not a CPU" in sentence(cpufw("import", "/dev/zero"), 1)
