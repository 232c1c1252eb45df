"""Arm machines: clusters, affinities, what `virt` gives and refuses, properties."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from qemu_arm_reference import cpu_class, load, machine, realized

import cpufw
from cpufw.core.topology import parse_smp
from cpufw.errors import ModelError, PropertyError, TopologyError
from cpufw.framework import default
from cpufw_arm.affinity import ARM_LEVELS, mpidr_affinity
from cpufw_arm.cpu import ArmCPU

MEASURED = load("arm-measured.json")


@pytest.mark.parametrize("smp", sorted(MEASURED["affinity"]))
def test_affinities_are_those_of_qemu(smp: str) -> None:
    topology = parse_smp(smp, ARM_LEVELS, 512)
    assert [mpidr_affinity(topology, slot) for slot in topology.slots()] == MEASURED["affinity"][
        smp
    ]


def test_every_cpu_shows_its_own_affinity() -> None:
    made = machine("virt", "aarch64", "cortex-a57", smp="20")
    cpus = made.cpus()
    assert len({cpu.arch_id for cpu in cpus}) == 20
    for cpu in cpus:
        assert isinstance(cpu, ArmCPU)
        assert cpu.get("mp-affinity") == cpu.arch_id
        assert cpu.id_registers["MPIDR_EL1"] == 0x80000000 | cpu.arch_id
    assert cpus[17].arch_id == 0x101


def test_clusters_are_a_level_of_the_topology() -> None:
    smp = "2,maxcpus=16,sockets=2,clusters=2,cores=2,threads=2"
    with cpufw.Machine("virt", cpu="cortex-a57", smp=smp) as made:
        cpu = made.device_add(
            "cortex-a57-arm-cpu", id="c1", socket_id=1, cluster_id=1, core_id=0, thread_id=1
        )
        assert cpu.slot is not None
        assert cpu.slot.index == 13
        assert cpu.get("cluster-id") == 1
        assert cpu.arch_id == 13


def test_virt_takes_512_cpus_and_no_more() -> None:
    with pytest.raises(TopologyError, match="512"):
        cpufw.Machine("virt", cpu="max", smp="513")
    assert default().machine_type("virt").max_cpus == 512


def test_virt_is_the_newest_version_and_its_default_cpu_is_qemus() -> None:
    assert default().machine_type("virt").name == "virt-10.0"
    with cpufw.Machine("virt") as made:
        assert [cpu.type_name for cpu in made.cpus()] == ["cortex-a15-arm-cpu"]
        assert made.cpus()[0].get("psci-conduit") == 2
        assert made.cpus()[0].get("has_el3") is False


def test_virt_gives_back_el3_to_those_who_ask() -> None:
    plain, asked = (
        realized("virt", "aarch64", "cortex-a57", **properties)
        for properties in ({}, {"has_el3": "on"})
    )
    assert plain.id_registers["ID_AA64PFR0_EL1"] == 0x22
    assert asked.id_registers["ID_AA64PFR0_EL1"] == 0x2022


def test_virt_refuses_options_of_a_board() -> None:
    with pytest.raises(cpufw.CpufwError, match="only describes CPUs"):
        cpufw.Machine("virt", cpu="max", kernel="vmlinux")


def test_memory_tagging_brings_the_models_own_level() -> None:
    for model, value in MEASURED["mte"].items():
        shown = realized("virt", "aarch64", model, mte="on").id_registers["ID_AA64PFR1_EL1"]
        assert shown == int(value, 16)


def test_properties_of_one_model_are_not_those_of_another() -> None:
    cpu = cpu_class("cortex-a57", "aarch64")(midr="0x410fd072", cntfrq=1000)
    cpu.realize()
    assert cpu.id_registers["MIDR_EL1"] == 0x410FD072
    assert cpu.id_registers["CNTFRQ_EL0"] == 1000
    other = cpu_class("arm926", "arm")(cntfrq=1000)
    other.realize()
    assert "CNTFRQ" not in other.id_registers


def test_a_users_model_starts_from_another(tmp_path: Path) -> None:
    (tmp_path / "fleet-n1.yaml").write_text(
        "kind: arm-model\nname: fleet-n1\ndescription: Neoverse N1 without PMU\n"
        "arch: aarch64\nbase: neoverse-n1\nremove: [pmu]\nmidr: 0x413fd0c1\n"
    )
    framework = cpufw.Framework(definitions=[str(tmp_path)])
    ours, base = (framework.cpu(name) for name in ("fleet-n1", "neoverse-n1,pmu=off"))
    assert isinstance(ours, ArmCPU)
    assert isinstance(base, ArmCPU)
    ours.realize()
    base.realize()
    assert {**ours.id_registers, "MIDR_EL1": 0x414FD0C1} == dict(base.id_registers)
    assert ours.id_registers["MIDR_EL1"] == 0x413FD0C1


def test_registers_go_with_the_cpu() -> None:
    cpu = cpu_class("cortex-a57", "aarch64")()
    cpu.realize()
    assert cpu.granted == cpu.requested
    with pytest.raises(PropertyError, match="realized"):
        cpu.set("pmu", False)
    with pytest.raises(TypeError):
        cpu.id_registers["MIDR_EL1"] = 1
    cpu.unrealize()
    assert not cpu.id_registers
    cpu.set("pmu", False)
    cpu.realize()
    assert cpu.id_registers["ID_AA64DFR0_EL1"] == 0x10305006


def test_mp_affinity_is_not_to_be_set() -> None:
    with pytest.raises(PropertyError, match=r"mp-affinity cannot be set"):
        cpu_class("max", "aarch64")(mp_affinity=3)


def test_a_model_that_virt_cannot_hold_is_refused_whole() -> None:
    sentence = r"virt-10.0 cannot hold cortex-m4 \(armv7-m\): it takes A-profile CPUs"
    with pytest.raises(ModelError, match=sentence):
        cpufw.Machine("virt", cpu="cortex-m4")


def test_the_plugin_imports_next_to_nothing() -> None:
    """What `list-models` pays for Arm: no registers, no rules, nothing of YAML."""
    program = (
        "import sys; import cpufw_arm.plugin; "
        "print([m for m in sys.modules if m.startswith(('cpufw_arm', 'ruamel', 'jsonschema'))])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "['cpufw_arm', 'cpufw_arm.affinity', 'cpufw_arm.plugin']"
