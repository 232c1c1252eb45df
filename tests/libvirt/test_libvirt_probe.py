"""What libvirt learns of the emulator, and what users ask it about CPUs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from libvirt_host import LibvirtHost

pytestmark = [pytest.mark.kvm, pytest.mark.libvirt]


@pytest.fixture(scope="module")
def capabilities(libvirt: LibvirtHost) -> ElementTree.Element:
    """`virsh domcapabilities` of the emulator."""
    text = libvirt.ok("domcapabilities", "--emulatorbin", libvirt.emulator)
    return ElementTree.fromstring(text)


def test_the_emulator_runs_kvm_guests_in_the_pc(capabilities: ElementTree.Element) -> None:
    assert capabilities.findtext("domain") == "kvm"
    assert capabilities.findtext("arch") == "x86_64"
    assert (capabilities.findtext("machine") or "").startswith("pc-")


def test_every_machine_type_of_the_command_line_is_known(libvirt: LibvirtHost) -> None:
    known = libvirt.ok("capabilities")
    emulator = libvirt.virsh(
        "domcapabilities", "--emulatorbin", libvirt.emulator, "--machine", "pc-q35-7.2"
    )
    assert emulator.status == 0, emulator.error
    assert "<arch>x86_64</arch>" in known


def test_all_modes_of_naming_a_cpu_are_offered(capabilities: ElementTree.Element) -> None:
    modes = {mode.get("name"): mode.get("supported") for mode in capabilities.iter("mode")}
    assert modes["custom"] == modes["host-model"] == modes["host-passthrough"] == "yes"


def test_models_say_whether_this_host_can_run_them(capabilities: ElementTree.Element) -> None:
    models = {
        model.text: model
        for mode in capabilities.iter("mode")
        if mode.get("name") == "custom"
        for model in mode.iter("model")
    }
    assert {"Haswell", "EPYC", "qemu64"} <= models.keys()
    assert models["pentium3"].get("usable") == "yes"
    host = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if not re.search(r"^flags.* sse4a( |$)", host, re.MULTILINE):
        assert models["EPYC"].get("usable") == "no"


def test_models_by_name(libvirt: LibvirtHost) -> None:
    assert "Haswell" in libvirt.ok("cpu-models", "x86_64").splitlines()


def test_the_hosts_own_cpu_is_identical_to_itself(
    libvirt: LibvirtHost, capabilities: ElementTree.Element, tmp_path: Path
) -> None:
    answer = libvirt.ok(
        "hypervisor-cpu-compare", "--emulator", libvirt.emulator, "--error",
        _host_model(capabilities, tmp_path),
    )  # fmt: skip
    assert "is identical to" in answer or "is a superset of" in answer


def test_a_cpu_that_the_host_cannot_have_is_incompatible(
    libvirt: LibvirtHost, tmp_path: Path
) -> None:
    file = tmp_path / "cpu.xml"
    feature = "<feature policy='require' name='xop'/><feature policy='require' name='amx-tile'/>"
    file.write_text(f"<cpu><model>qemu64</model>{feature}</cpu>", encoding="utf-8")
    answer = libvirt.virsh(
        "hypervisor-cpu-compare", "--emulator", libvirt.emulator, "--error", file
    )
    assert answer.status != 0
    assert "incompatible" in answer.error
    assert "xop" in answer.error or libvirt.version.startswith("9.")


def test_the_baseline_of_a_host_with_itself_is_itself(
    libvirt: LibvirtHost, capabilities: ElementTree.Element, tmp_path: Path
) -> None:
    file = _host_model(capabilities, tmp_path)
    answer = libvirt.ok("hypervisor-cpu-baseline", "--emulator", libvirt.emulator, file)
    ours, theirs = ElementTree.parse(file).getroot(), ElementTree.fromstring(answer)
    assert theirs.findtext("model") == ours.findtext("model")
    required = {f.get("name") for f in ours.iter("feature") if f.get("policy") == "require"}
    assert required <= {f.get("name") for f in theirs.iter("feature")}


def _host_model(capabilities: ElementTree.Element, folder: Path) -> Path:
    """The CPU that libvirt would give a guest with `<cpu mode='host-model'/>`, in a file."""
    mode = next(m for m in capabilities.iter("mode") if m.get("name") == "host-model")
    cpu = ElementTree.Element("cpu")
    for each in mode:
        if each.tag != "maxphysaddr":
            cpu.append(each)
    file = folder / "cpu.xml"
    ElementTree.ElementTree(cpu).write(file)
    os.chmod(file, 0o644)  # noqa: PTH101
    return file
