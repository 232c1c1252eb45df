"""libvirt's names of Arm's and Power's models, which are names of CPUs found in hosts."""

from __future__ import annotations

import pytest
from cpus import formats, framework

from cpufw.errors import FormatError
from cpufw.formats.format import Exported, Imported


def read(arch: str, model: str) -> Imported:
    text = f"<cpu><arch>{arch}</arch><model>{model}</model></cpu>"
    return formats().codec("libvirt", arch).read(text, framework())


def write(arch: str, cpu: str) -> Exported:
    return formats().codec("libvirt", arch).write(framework().cpu(cpu, arch), framework())


@pytest.mark.parametrize(
    ("arch", "theirs", "ours"),
    [
        ("aarch64", "Neoverse-N1", "neoverse-n1"),
        ("aarch64", "Neoverse-V1", "neoverse-v1"),
        ("aarch64", "a64fx", "a64fx"),
        ("ppc64", "POWER8", "power8_v2.0"),
        ("ppc64", "POWER9", "power9_v2.2"),
        ("ppc64", "POWERPC_e6500", "e6500"),
    ],
)
def test_a_name_of_libvirts_is_the_model_here(arch: str, theirs: str, ours: str) -> None:
    imported = read(arch, theirs)
    assert imported.request.model == ours
    assert not imported.notes


@pytest.mark.parametrize(
    ("arch", "theirs"),
    [("aarch64", "Kunpeng-920"), ("aarch64", "ThunderX2 99xx"), ("ppc64", "POWER6")],
)
def test_a_cpu_that_only_libvirt_knows(arch: str, theirs: str) -> None:
    with pytest.raises(FormatError, match=f"libvirt's {theirs} is a CPU that QEMU"):
        read(arch, theirs)


def test_libvirts_name_of_a_power_model_is_written() -> None:
    written = write("ppc64", "power9_v2.2")
    assert ">POWER9</model>" in written.text
    assert not written.lost
    older = write("ppc64", "power9_v2.0")
    assert ">POWER9</model>" in older.text
    assert any(each.startswith("pvr=") for each in older.lost)
    assert ">970_v2.2</model>" in write("ppc64", "970_v2.2").text


def test_an_arm_guest_has_qemus_name() -> None:
    """libvirt hands it to QEMU as it is; its own names are those of hosts."""
    written = write("aarch64", "neoverse-n1")
    assert ">neoverse-n1</model>" in written.text
    assert read("aarch64", "neoverse-n1").request.model == "neoverse-n1"


def test_a_feature_that_libvirt_has_no_name_for_is_told() -> None:
    assert "pmu=off" in " ".join(write("aarch64", "cortex-a57,pmu=off").lost)
    written = write("aarch64", "neoverse-v1,sve256=off")
    assert 'policy="disable" name="sve256"' in written.text
    assert not written.lost
