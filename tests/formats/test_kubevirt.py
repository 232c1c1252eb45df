"""KubeVirt: a virtual machine's spec, a node's labels."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cpus import again, assert_golden, cpu_text, cpu_texts, expansion, lost_features, read, write
from hypothesis import given, settings
from ruamel.yaml import YAML

from cpufw.errors import CpufwError, FormatError, ModelError


def vm(cpu: dict[str, Any]) -> dict[str, Any]:
    """The CPU in a whole VirtualMachine."""
    domain = {"cpu": cpu, "devices": {"disks": []}, "resources": {"requests": {"memory": "1Gi"}}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "guest"},
        "spec": {"running": True, "template": {"spec": {"domain": domain}}},
    }


@settings(max_examples=25)
@given(text=cpu_texts())
def test_what_is_written_and_read_is_the_same_cpu(text: str) -> None:
    exported, came = again("kubevirt", text)
    assert not (came.features ^ expansion(text).features) - lost_features(exported)


@settings(max_examples=15)
@given(text=cpu_texts())
def test_the_labels_of_a_node_tell_the_same_features(text: str) -> None:
    exported, came = again("kubevirt-node", text)
    assert not (came.features ^ expansion(text).features) - lost_features(exported)


def test_the_golden_spec_and_labels() -> None:
    assert_golden("Penryn-vm.yaml", write("kubevirt", "Penryn,+x2apic,-sse4.1").text)
    assert_golden("Penryn-node.yaml", write("kubevirt-node", "Penryn,+x2apic,-sse4.1").text)


def test_the_spec_is_one_that_kubernetes_merges() -> None:
    spec = YAML(typ="safe", pure=True).load(write("kubevirt", "Penryn,-sse4.1").text)
    cpu = spec["spec"]["template"]["spec"]["domain"]["cpu"]
    assert cpu["model"] == "Penryn"
    assert {"name": "sse4.1", "policy": "disable"} in cpu["features"]


def test_what_libvirt_can_say_and_kubevirt_cannot_is_lost() -> None:
    exported = write("kubevirt", "Haswell,phys-bits=42,l3-cache=off,vendor=AuthenticAMD,enforce=on")
    assert exported.lost == ("vendor=AuthenticAMD", "phys-bits=42", "l3-cache=off", "enforce=on")


def test_every_object_with_a_cpu_is_read_as_yaml_and_as_json() -> None:
    cpu = {"model": "Skylake-Client-v4", "features": [{"name": "invtsc"}], "cores": 2}
    whole = vm(cpu)
    instance = {"kind": "VirtualMachineInstance", "spec": {"domain": {"cpu": cpu}}}
    for document in (whole, instance, {"spec": {"cpu": cpu}}, {"cpu": cpu}):
        imported = read("kubevirt", json.dumps(document))
        assert cpu_text(imported) == "Skylake-Client-v4,+invtsc"
        assert imported.notes == ("cores is not part of a CPU model",)
    text = "spec:\n  domain:\n    cpu:\n      model: Skylake-Client-v4\n"
    assert cpu_text(read("kubevirt", text)) == "Skylake-Client-v4"


def test_the_first_of_several_objects_is_read() -> None:
    text = (
        "kind: Namespace\nmetadata: {name: x}\n---\n"
        "spec: {domain: {cpu: {model: Penryn}}}\n---\nspec: {cpu: {model: Conroe}}\n"
    )
    imported = read("kubevirt", text)
    assert imported.request.model == "Penryn"
    assert imported.notes[0] == "only the first CPU of several is read"
    nodes = {"kind": "List", "items": [json.loads(node(REQUIRED)), json.loads(node(SUPPORTED))]}
    assert "umip" in expansion(cpu_text(read("kubevirt-node", json.dumps(nodes)))).features


@pytest.mark.parametrize(
    ("model", "name"), [("host-passthrough", "host"), ("host-model", "host"), (None, "host")]
)
def test_models_of_the_host(model: str | None, name: str) -> None:
    cpu: dict[str, Any] = {"features": [{"name": "svm", "policy": "disable"}]}
    imported = read("kubevirt", json.dumps(vm(cpu | ({"model": model} if model else {}))))
    assert cpu_text(imported) == f"{name},-svm"
    assert bool(imported.notes) == (model != "host-passthrough")


def test_host_is_passed_through_and_max_has_no_word() -> None:
    assert "model: host-passthrough" in write("kubevirt", "host").text
    with pytest.raises(ModelError, match="no word for CPU model 'max'"):
        write("kubevirt", "max")
    with pytest.raises(ModelError, match="'host'"):
        write("kubevirt-node", "host")


def test_a_node_without_a_host_model_is_its_richest() -> None:
    labels = {
        f"cpu-model.node.kubevirt.io/{name}": "true" for name in ("Penryn", "Haswell", "Conroe")
    }
    imported = read("kubevirt-node", json.dumps({"metadata": {"labels": labels}}))
    assert imported.request.model == "Haswell"
    assert any("Haswell has most features" in note for note in imported.notes)


# The labels of a node that KubeVirt made, with a Xeon E5-2690 v3.
REQUIRED = (
    "abm amd-ssbd amd-stibp arat arch-capabilities f16c hypervisor ibpb ibrs invtsc md-clear pdcm "
    "pdpe1gb pschange-mc-no rdrand skip-l1dfl-vmentry ss ssbd stibp tsc_adjust umip vme vmx "
    "xsaveopt"
)
SUPPORTED = (
    "aes apic avx avx2 bmi1 bmi2 clflush cmov cx16 cx8 de erms fma fpu fsgsbase fxsr invpcid "
    "lahf_lm lm mca mce mmx movbe msr mtrr nx pae pat pcid pclmuldq pge pni popcnt pse pse36 "
    "rdtscp sep smep spec-ctrl sse sse2 sse4.1 sse4.2 ssse3 syscall tsc tsc-deadline x2apic xsave"
)


def node(features: str) -> str:
    labels = {"host-model-cpu.node.kubevirt.io/Haswell-noTSX-IBRS": "true", "cpumanager": "false"}
    names = {"host-model-required-features": REQUIRED, "cpu-feature": features}
    for kind, each in names.items():
        labels |= {f"{kind}.node.kubevirt.io/{name}": "true" for name in each.split()}
    return json.dumps({"kind": "Node", "metadata": {"labels": labels}})


def test_a_real_node_has_the_features_of_its_labels() -> None:
    imported = read("kubevirt-node", node(f"{REQUIRED} {SUPPORTED}"))
    features = expansion(cpu_text(imported)).features
    vmx = {name for name in features if name.startswith("vmx-")}
    labelled = {name.replace("_", "-") for name in f"{REQUIRED} {SUPPORTED}".split()}
    assert set(features) - vmx == labelled - {"pclmuldq"} | {"pclmulqdq"}
    assert imported.request.model == "Haswell-noTSX-IBRS"


def test_labels_without_the_minimal_models_features_take_nothing_away() -> None:
    imported = read("kubevirt-node", node(REQUIRED))
    features = expansion(cpu_text(imported)).features
    assert {"fpu", "avx2", "umip", "vmx"} <= set(features)
    assert any("leave out most features" in note for note in imported.notes)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("kubevirt", "spec: {", "line 1, column"),
        ("kubevirt", "a: b: c", "line 1, column 5"),
        ("kubevirt", '{"spec": }', "line 1, column 10"),
        ("kubevirt", "spec: {}", "there is no CPU in it"),
        ("kubevirt", "- 1", "there is no CPU in it"),
        ("kubevirt", '{"cpu": {"model": 486}}', "cpu.model is not text"),
        ("kubevirt", "cpu: {model: Haswell, model: Penryn}", "is there twice"),
        ("kubevirt", "cpu: {model: Haswel}", "did you mean Haswell"),
        ("kubevirt", "cpu: {model: Haswell, features: avx}", "is not a list"),
        ("kubevirt", "cpu: {model: Haswell, features: [avx]}", "needs a name"),
        ("kubevirt", "cpu: !!python/object:os.system {}", "column 6: aliases and tags"),
        ("kubevirt", "cpu: " + "[" * 100_000, "nested too deeply"),
        ("kubevirt", "cpu:\n  " + "- " * 100_000, "nested too deeply"),
        ("kubevirt", '{"cpu": ' + "9" * 10_000 + "}", "a number is too long"),
        ("kubevirt", '{"cpu": ' + "[" * 100_000, "nested too deeply"),
        ("kubevirt", "x: " + "y" * (1 << 21), "characters"),
        ("kubevirt-node", "metadata: {labels: {a: b}}", "no labels of KubeVirt"),
        (
            "kubevirt-node",
            "metadata: {labels: {cpu-vendor.node.kubevirt.io/Intel: 'true'}}",
            "no label begins with",
        ),
    ],
)
def test_malformed_text_is_one_sentence(name: str, text: str, said: str) -> None:
    with pytest.raises(CpufwError) as error:
        read(name, text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    lines.append("cpu: {model: Haswell, features: *a39}")
    with pytest.raises(FormatError, match="aliases"):
        read("kubevirt", "\n".join(lines))
