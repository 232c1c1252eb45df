"""Commands that weigh CPUs against one another: expand, compare, baseline, explain."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from command import sentence

from cpufw.cli import main
from cpufw.core.capture import HostCapture
from cpufw.core.model_algebra import ExpandedModel
from cpufw.fleet.capture_file import dump
from cpufw.framework import Framework


def cpufw(*arguments: str | Path) -> CompletedProcess[str]:
    """Run the command in this process: it starts often here, and how it starts is no matter."""
    line = [*map(str, arguments)]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main(line)
    return CompletedProcess(line, status, out.getvalue(), err.getvalue())


def told(*arguments: str | Path) -> Any:
    done = cpufw(*arguments, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def shown(*arguments: str | Path) -> list[list[str]]:
    """The lines of the table form, each as its words."""
    done = cpufw(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()]


@pytest.fixture
def captured(framework: Framework, tmp_path: Path) -> Any:
    """Writes the file of a host that can give what a model has."""

    def write(name: str, text: str) -> Path:
        algebra = framework.algebra("x86_64")
        operand = algebra.operand(text)
        rules = framework.architectures["x86_64"].capture
        assert rules is not None
        on, _ = rules().default_features(algebra.catalogue.table)
        host = HostCapture(
            name,
            "x86_64",
            "made for this test",
            tuple(operand.features | on),
            {**framework.cpu(text).expand().identity, "phys-bits": 46},
            accelerator="kvm",
        )
        path = tmp_path / f"{name}.yaml"
        path.write_text(dump(host, algebra.catalogue.table))
        return path

    return write


# --- expand -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["static", "full"])
def test_expand_in_qmp_s_shape_is_the_model_again(framework: Framework, kind: str) -> None:
    text = "EPYC-Rome-v2,+vmx,-avx,stepping=9"
    found = told("expand", text, "--type", kind)
    assert list(found) == ["model"]
    assert found["model"]["name"] == ("base" if kind == "static" else "EPYC-Rome-v2")
    assert found["model"]["props"]["stepping"] == 9
    again = ExpandedModel(found["model"]["name"], found["model"]["props"])
    verdict = framework.algebra("x86_64").compare(text, again)
    assert (verdict.relation.value, verdict.responsible) == ("identical", ())


def test_expand_shows_values_and_places() -> None:
    lines = shown("expand", "Haswell,-avx")
    assert " ".join(lines[0]) == "Haswell,-avx is base with"
    assert ["pcid", "on", "1.ECX:17"] in lines
    assert ["min-level", "0xd"] in lines
    assert "avx" not in {line[0] for line in lines}
    full = shown("expand", "Haswell,-avx", "--type", "full")
    assert ["avx", "off", "1.ECX:28"] in full
    assert ["kvm", "on"] in full
    assert shown("expand", "base") == [["base"]]


def test_expand_of_the_host_needs_a_machine() -> None:
    assert "add --machine pc" in sentence(cpufw("expand", "host"), 1)


@pytest.mark.kvm
def test_expand_of_the_host(framework: Framework) -> None:
    props = told("expand", "host", "--machine", "pc")["model"]["props"]
    host = told("host")
    assert props["vendor"] == host["identity"]["vendor"]
    table = framework.catalogue("x86_64").table
    on = {name for name, value in props.items() if value is True and name in table}
    assert on <= set(host["features"])
    assert "fpu" in on


# --- compare ------------------------------------------------------------------------------


def test_compare_says_who_has_what() -> None:
    found = told("compare", "Haswell-v1", "Haswell-v4,-pcid")
    assert found["result"] == "incompatible"
    assert (found["only-a"], found["only-b"]) == (["pcid", "hle", "rtm"], ["spec-ctrl"])
    assert found["values"]["stepping"] == [4, 1]
    names = [*found["only-a"], *found["only-b"], *found["values"]]
    assert sorted(found["responsible-properties"]) == sorted(names)
    lines = shown("compare", "Haswell-v1", "Haswell-v2")
    assert " ".join(lines[0]) == "Haswell-v1 is a superset of Haswell-v2"
    assert ["rtm", "on", "off", "7.0.EBX:11"] in lines
    assert shown("compare", "Haswell", "Haswell-v1") == [
        ["Haswell", "is", "identical", "to", "Haswell-v1"]
    ]


def test_compare_a_model_with_a_captured_host(captured: Any) -> None:
    host = captured("node1", "Broadwell-v4")
    found = told("compare", "Haswell-v4", host)
    assert (found["result"], found["b"]) == ("subset", "node1")
    assert "adx" in found["only-b"]
    assert told("compare", host, host)["result"] == "identical"


@pytest.mark.kvm
def test_compare_with_this_host() -> None:
    verdict = told("compare", "host", "base")  # whatever vendor the host is of
    assert (verdict["a"], verdict["result"]) == ("host", "superset")
    assert "cannot be given here" in sentence(cpufw("compare", "host,-avx", "base"), 1)


def test_compare_needs_two_of_one_architecture(captured: Any) -> None:
    assert "did you mean" in sentence(cpufw("compare", "Haswel", "Haswell"), 1)
    assert "cannot be read" in sentence(cpufw("compare", "Haswell", "./nothing.yaml"), 1)
    host = captured("node1", "Haswell")
    assert "expected one of other" in sentence(cpufw("compare", host, host, "--arch", "other"), 1)
    assert cpufw("compare", "Haswell").returncode == 2


def test_hosts_of_one_name_go_by_their_paths(captured: Any, tmp_path: Path) -> None:
    one = captured("node1", "Haswell-v4")
    other = tmp_path / "rack2" / "node1.yaml"
    other.parent.mkdir()
    other.write_text(captured("node2", "Haswell-v4,-pcid").read_text())
    found = told("explain", "Haswell-v4", "--on", one, other)
    assert found["hosts"] == [str(one), str(other)]
    assert [each["lacking-on"] for each in found["missing"]] == [[str(other)]]


# --- baseline -----------------------------------------------------------------------------


def test_baseline_of_models_and_hosts(captured: Any, framework: Framework) -> None:
    hosts = [captured("new", "Broadwell-v4"), captured("old", "Haswell-v4,-pcid,+pdpe1gb")]
    found = told("baseline", *hosts)
    assert found["of"] == ["new", "old"]
    named, algebra = found["named"], framework.algebra("x86_64")
    assert (named["model"], named["drops"]) == ("Haswell-v4", ["pcid"])
    assert "kvmclock" in named["adds"]
    assert list(algebra.operand(named["cpu"]).features) == found["features"]
    assert found["lacking"]["pcid"] == ["old"]
    assert found["lacking"]["pdpe1gb"] == ["new"]
    assert "pcid" in found["gains"]["old"]
    static = ExpandedModel(found["static"]["name"], found["static"]["props"])
    assert list(algebra.operand(static).features) == found["features"]
    both = told("baseline", *hosts, "Haswell-v4,-avx2")
    assert set(both["features"]) < set(found["features"]) - {"avx2"}
    lines = shown("baseline", *hosts)
    assert ["nearest", "Haswell-v4"] in lines
    assert ["drops", "pcid"] in lines
    assert ["pcid", "old"] in lines


def test_baseline_of_two_vendors_is_refused() -> None:
    assert "different vendors" in sentence(cpufw("baseline", "EPYC", "Haswell"), 1)


# --- explain ------------------------------------------------------------------------------


def test_explain_on_captured_hosts(captured: Any) -> None:
    hosts = [captured("new", "Haswell-v4"), captured("old", "Haswell-v4,-avx,-pcid")]
    found = told("explain", "Haswell-v4", "--on", *hosts)
    assert not found["runs"]
    assert found["hosts"] == ["new", "old"]
    missing = {each["feature"]: each for each in found["missing"]}
    assert missing["avx"] == {
        "feature": "avx",
        "places": ["1.ECX:28"],
        "required-by": ["fma", "f16c", "avx2"],
        "lacking-on": ["old"],
        "unknown-on": [],
    }
    assert set(found["gains"]["old"]) == {"pcid", "fma", "avx", "f16c", "avx2"}
    lines = shown("explain", "Haswell-v4", "--on", *hosts)
    assert " ".join(lines[0]) == found["sentence"]
    assert ["pcid", "1.ECX:17", "-", "old"] in lines
    assert told("explain", found["reduced"], "--on", *hosts)["runs"]
    assert shown("explain", found["as-is"], "--on", *hosts) == [
        [found["as-is"], "runs", "as", "it", "is"]
    ]


@pytest.mark.kvm
def test_explain_on_this_host_agrees_with_list_models() -> None:
    rows = told("list-models", "--usable", "--arch", "x86_64")
    missing = {row["name"]: row["unavailable_features"] for row in rows}
    for model in ("Haswell-v4", "pentium", "qemu64"):
        found = told("explain", model)
        assert [each["feature"] for each in found["missing"]] == missing[model]
        assert found["runs"] == (not missing[model])
