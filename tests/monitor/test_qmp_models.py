"""CPU models over QMP: as QEMU 10.0.2 answered on each architecture (tests/data/qemu10)."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from qmp_direct import Direct

from cpufw.framework import Framework, default
from cpufw.monitor.errors import QmpError

PACKED = Path(__file__).parents[1] / "data/qemu10/qmp-models.json.xz"
REFERENCE: dict[str, Any] = json.loads(lzma.decompress(PACKED.read_bytes()))
PROBES = {
    "x86_64": "qemu64",
    "aarch64": "max",
    "arm": "cortex-a15",
    "s390x": "z13",
    "ppc64": "power9_v2.0",
    "ppc": "405",
}


@pytest.fixture(scope="module")
def framework() -> Framework:
    """The one that monitors of `Direct` use."""
    return default()


def by_name(definitions: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in definitions}


@pytest.fixture(scope="module")
def probes(framework: Framework) -> Iterator[dict[str, Direct]]:
    """A machine `none` of each architecture, with no accelerator."""
    machines = {
        arch: framework.machine("none", cpu=cpu, arch=arch, accel=None)
        for arch, cpu in PROBES.items()
    }
    yield {arch: Direct(machine) for arch, machine in machines.items()}
    for machine in machines.values():
        machine.close()


@pytest.mark.parametrize("arch", PROBES)
def test_definitions_are_those_of_the_reference(probes: dict[str, Direct], arch: str) -> None:
    ours = by_name(probes[arch].run("query-cpu-definitions"))
    theirs = by_name(REFERENCE[arch]["definitions"])
    for name, definition in theirs.items():
        if definition["typename"] == "":  # QEMU leaves it out of all models that are no alias
            definition["typename"] = f"{name}-{'powerpc64' if arch == 'ppc64' else 'powerpc'}-cpu"
    assert ours == theirs


@pytest.mark.parametrize(
    ("machine", "alias"),
    [("pc-q35-10.0", "Haswell-v1"), ("pc-i440fx-4.0", None), ("microvm", "Haswell-v4")],
)
def test_what_a_name_stands_for_depends_on_the_machine(
    framework: Framework, machine: str, alias: str | None
) -> None:
    with framework.machine(machine, cpu="qemu64", accel=None) as built:
        found = by_name(Direct(built).run("query-cpu-definitions"))
    assert found["Haswell"].get("alias-of") == alias
    assert found["Haswell-noTSX"].get("alias-of") == (alias and "Haswell-v2")


def answer(probe: Direct, name: str, **arguments: Any) -> Any:
    try:
        return probe.run(name, **arguments)
    except QmpError as error:
        return {"error": {"class": error.error_class, "desc": str(error)}}


@pytest.mark.parametrize("arch", ["s390x", "aarch64", "arm"])
def test_expansions_are_those_of_the_reference(probes: dict[str, Direct], arch: str) -> None:
    """Arm's has more properties than QEMU's, which has a few of the features only."""
    wrong = {}
    for name, cases in REFERENCE[arch]["expansion"].items():
        model = {"name": "no-such-model" if name == "#bogus" else name}
        for kind, expected in cases.items():
            found = answer(probes[arch], "query-cpu-model-expansion", type=kind, model=model)
            for each in (expected, found):
                each.get("deprecated-props", []).sort()
            if arch != "s390x" and "model" in found and "model" in expected:
                theirs = expected["model"].get("props", {})
                found = {
                    "model": {
                        "name": found["model"]["name"],
                        "props": {n: found["model"]["props"].get(n) for n in theirs},
                    }
                }
                expected = {"model": {"props": {}, **expected["model"]}}
            if found != expected:
                wrong[name, kind] = found
    assert not wrong


def test_expansions_of_x86_are_those_of_the_reference(framework: Framework) -> None:
    with framework.machine("none", cpu="qemu64", arch="x86_64", accel=None) as machine:
        probe = Direct(machine)
        for name in ("Haswell", "base"):
            found = probe.run("query-cpu-model-expansion", type="static", model={"name": name})
            ours = found["model"]["props"]
            theirs = REFERENCE["x86_64-expansion"][name]["static"]["model"]["props"]
            assert found["model"]["name"] == "base"
            features = {n for n, value in theirs.items() if isinstance(value, bool)} - {"lmce"}
            kvm = {n for n in features if n.startswith("kvm")}  # the accelerator turns these on
            assert {n: ours[n] for n in features - kvm} == {n: theirs[n] for n in features - kvm}
            values = {n: value for n, value in theirs.items() if value and n not in features}
            assert {n: ours.get(n) for n in values} == values


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"name": "nope"}, "CPU model 'nope' not found"),
        ({"name": "Haswell,+avx"}, "CPU model 'Haswell,+avx' not found"),
        ({"name": ""}, "CPU model '' not found"),
        ({}, "Parameter 'model.name' is missing"),
        (
            {"name": "Haswell", "props": []},
            "Invalid parameter type for 'model.props', expected: object",
        ),
        (
            {"name": "Haswell", "props": {"nope": True}},
            "Property 'Haswell-x86_64-cpu.nope' not found",
        ),
        (
            {"name": "Haswell", "props": {"pcid": "on"}},
            "Invalid parameter type for 'model.props.pcid', expected: boolean",
        ),
        (
            {"name": "Haswell", "props": {"vendor": 7}},
            "Invalid parameter type for 'model.props.vendor', expected: string",
        ),
        (
            {"name": "Haswell", "props": {"stepping": "x"}},
            "Parameter 'model.props.stepping' expects uint64",
        ),
    ],
)
def test_a_model_that_cannot_be_is_refused_in_the_words_of_qemu(
    probes: dict[str, Direct], model: dict[str, Any], sentence: str
) -> None:
    found = answer(probes["x86_64"], "query-cpu-model-expansion", type="static", model=model)
    assert found == {"error": {"class": "GenericError", "desc": sentence}}


def test_properties_of_the_request_count(probes: dict[str, Direct]) -> None:
    model = {"name": "Haswell", "props": {"pcid": False, "stepping": 3}}
    found = probes["x86_64"].run("query-cpu-model-expansion", type="static", model=model)
    props = found["model"]["props"]
    assert (props["pcid"], props["stepping"], props["avx2"]) == (False, 3, True)
    again = probes["x86_64"].run("query-cpu-model-expansion", type="static", model=found["model"])
    assert again == found


def test_comparisons_are_those_of_the_reference(probes: dict[str, Direct]) -> None:
    for pair, expected in REFERENCE["s390x"]["comparison"].items():
        a, b = pair.split("|")
        arguments = {"modela": {"name": a}, "modelb": {"name": b}}
        found = probes["s390x"].run("query-cpu-model-comparison", **arguments)
        assert found["result"] == expected["result"], pair
        properties = "responsible-properties"
        assert set(found[properties]) == set(expected[properties]), pair


def test_baselines_are_those_of_the_reference(probes: dict[str, Direct]) -> None:
    for pair, expected in REFERENCE["s390x"]["baseline"].items():
        a, b = pair.split("|")
        arguments = {"modela": {"name": a}, "modelb": {"name": b}}
        assert answer(probes["s390x"], "query-cpu-model-baseline", **arguments) == expected, pair


@pytest.mark.parametrize(
    ("arch", "a", "b", "result"),
    [
        ("x86_64", "Haswell", "Haswell-noTSX", "superset"),
        ("x86_64", "Nehalem", "Haswell", "subset"),
        ("x86_64", "Haswell", "Haswell-v1", "identical"),
        ("x86_64", "EPYC", "Haswell", "incompatible"),
        ("ppc64", "power9_v2.0", "power9_v2.0", "identical"),
        ("aarch64", "cortex-a57", "cortex-a72", "incompatible"),
    ],
)
def test_comparison_on_every_architecture(
    probes: dict[str, Direct], arch: str, a: str, b: str, result: str
) -> None:
    models = {"modela": {"name": a}, "modelb": {"name": b}}
    found = probes[arch].run("query-cpu-model-comparison", **models)
    assert found["result"] == result
    assert bool(found["responsible-properties"]) == (result != "identical")


def test_a_baseline_is_a_subset_of_both(probes: dict[str, Direct]) -> None:
    models = {"modela": {"name": "Haswell"}, "modelb": {"name": "SandyBridge"}}
    found = probes["x86_64"].run("query-cpu-model-baseline", **models)["model"]
    for name in ("Haswell", "SandyBridge"):
        pair = {"modela": found, "modelb": {"name": name}}
        verdict = probes["x86_64"].run("query-cpu-model-comparison", **pair)
        assert verdict["result"] in ("subset", "identical")
    named = probes["ppc64"].run(
        "query-cpu-model-baseline",
        modela={"name": "power9_v2.0"},
        modelb={"name": "power10_v2.0"},
    )
    assert named["model"]["name"].startswith("power")


@pytest.mark.kvm
def test_definitions_say_what_the_host_lacks_and_quickly(framework: Framework) -> None:
    with framework.machine("none", cpu="qemu64", arch="x86_64", accel="kvm") as machine:
        probe = Direct(machine)
        found = by_name(probe.run("query-cpu-definitions"))
        assert found["max"]["unavailable-features"] == []
        assert machine.accelerator is not None
        granted = machine.accelerator.supported_features(machine.cpu_class.model.table)
        for name in found["EPYC"]["unavailable-features"]:
            assert name not in granted
        times = []
        for _ in range(5):
            start = perf_counter()
            probe.run("query-cpu-definitions")
            times.append(perf_counter() - start)
        assert min(times) < 0.1
        host = probe.run("query-cpu-model-expansion", type="static", model={"name": "host"})
        assert host["model"]["props"]["fpu"] is True


@pytest.mark.kvm
def test_cpufws_own_commands_say_what_the_cli_says(framework: Framework) -> None:
    demo = framework.machine_type("pc").demo
    assert demo is not None
    with framework.machine("pc", cpu="qemu64", **demo) as machine:
        probe = Direct(machine)
        machine.start()
        found = probe.run("x-cpufw-verify")
        boot = machine.cpus()[0]
        assert found["granted"] == list(boot.granted)
        assert found["same"] == (not found["words"] and not found["extra"])
        explained = probe.run("x-cpufw-explain", model="EPYC-Genoa")
        assert explained["runs"] == (not explained["missing"])
        capture = probe.run("x-cpufw-capture")
        assert capture["capture"].startswith("kind: host-capture")
        with pytest.raises(QmpError, match="expects a CPU number"):
            probe.run("x-cpufw-verify", cpu_index=7)


def test_without_an_accelerator_captures_must_be_named(probes: dict[str, Direct]) -> None:
    with pytest.raises(QmpError, match="name captures in 'on'"):
        probes["x86_64"].run("x-cpufw-explain", model="Haswell")
