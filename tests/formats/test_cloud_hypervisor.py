"""Cloud Hypervisor, which can say almost nothing of a CPU model and must not pretend to."""

from __future__ import annotations

import json

import pytest
from cpus import cpu_text, expansion, read, write

from cpufw.errors import CpufwError


def test_what_it_can_say_and_that_the_rest_is_lost() -> None:
    text = "SapphireRapids,phys-bits=46,+vmx"
    exported = write("cloud-hypervisor", text)
    assert json.loads(exported.text) == {
        "cpus": {
            "boot_vcpus": 1,
            "max_vcpus": 1,
            "max_phys_bits": 46,
            "kvm_hyperv": False,
            "nested": True,
            "features": {"amx": True},
        }
    }
    said = {"vmx", "amx-tile", "amx-int8", "amx-bf16"}
    wanted = {f"{name}=on" for name in expansion(text).features if name not in said}
    assert wanted <= set(exported.lost)
    assert {"name=SapphireRapids", "vendor=GenuineIntel", "stepping=4"} <= set(exported.lost)
    assert not {"amx-tile=on", "vmx=on", "phys-bits=46"} & set(exported.lost)


def test_the_hosts_cpu_is_what_it_runs() -> None:
    exported = write("cloud-hypervisor", "host,phys-bits=40,-vmx,-svm,-avx2")
    assert exported.lost == ("avx2=off",)
    cpus = json.loads(exported.text)["cpus"]
    assert (cpus["nested"], cpus["max_phys_bits"]) == (False, 40)


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_the_hosts_cpu_comes_back(amx: bool, nested: bool) -> None:
    text = "host" + ("" if amx else ",-amx-tile") + ("" if nested else ",-vmx,-svm")
    exported = write("cloud-hypervisor", text + (",+amx-tile" if amx else ""))
    imported = read("cloud-hypervisor", exported.text)
    assert imported.request.model == "host"
    assert ("amx-tile" in imported.request.minus) == (not amx)
    assert ("vmx" in imported.request.minus) == (not nested)


def test_the_option_says_the_same_as_the_object() -> None:
    option = (
        "--cpus boot=2,max=8,topology=1:4:1:1,kvm_hyperv=off,max_phys_bits=42,"
        "affinity=[0@[0-3],1@[4,5]],features=[amx],nested=off"
    )
    document = {
        "cpus": {
            "boot_vcpus": 2,
            "max_vcpus": 8,
            "topology": {"threads_per_core": 1, "cores_per_die": 4},
            "max_phys_bits": 42,
            "affinity": [{"vcpu": 0, "host_cpus": [0]}],
            "features": {"amx": True},
            "nested": False,
        }
    }
    for text in (option, json.dumps(document)):
        imported = read("cloud-hypervisor", text)
        assert cpu_text(imported) == "host,-vmx,-svm,phys-bits=42"
        assert "topology is not part of a CPU model" in imported.notes
        assert "affinity is not part of a CPU model" in imported.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("boot=1,maxx=2", "'maxx=2' is not known"),
        ('{"cpus": {"max_vcpus": 1}}', "boot_vcpus is missing"),
        ('{"cpus": {"boot_vcpus": 1, "cores": 1}}', "'cores' is not known"),
        ('{"cpus": {"boot_vcpus": 1, "features": ["amx"]}}', "features is not an object"),
        ('{"cpus": {"boot_vcpus": 1, "nested": 7}}', "nested=7 is not valid"),
        ('{"cpus": {"boot_vcpus": 1, "max_phys_bits": 99}}', "99"),
        ('{"cpus": {"boot_vcpus": 1', "line 1, column 26"),
    ],
)
def test_bad_options(text: str, said: str) -> None:
    with pytest.raises(CpufwError) as error:
        read("cloud-hypervisor", text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
