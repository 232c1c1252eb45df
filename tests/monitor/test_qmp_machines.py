"""Machine types over QMP: as QEMU 10.0.2 lists them, and cpufw's own."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from qmp_direct import Direct

from cpufw.framework import Framework, default
from cpufw.monitor.errors import QmpError

PACKED = Path(__file__).parents[1] / "data/qemu10/qmp-models.json.xz"
QEMU: list[dict[str, Any]] = json.loads(lzma.decompress(PACKED.read_bytes()))["machines"]


@pytest.fixture(scope="module")
def framework() -> Framework:
    """The one that monitors of `Direct` use."""
    return default()


def machines(framework: Framework, arch: str, cpu: str, **arguments: Any) -> dict[str, Any]:
    with framework.machine("none", cpu=cpu, arch=arch, accel=None) as machine:
        found = Direct(machine).run("query-machines", **arguments)
    return {each["name"]: each for each in found}


def test_the_machine_types_of_x86_are_those_of_the_reference(framework: Framework) -> None:
    ours = machines(framework, "x86_64", "qemu64")
    own = {
        name: ours.pop(name)
        for name in list(ours)
        if name.startswith("pc-") and name.endswith("-0.1")
    }
    theirs = {each["name"]: each for each in QEMU if each["name"] != "x-remote"}
    # `pc` is cpufw's own machine, and the default.
    for name in ("alias", "is-default"):
        del theirs["pc-i440fx-10.0"][name]
    assert ours == theirs
    assert own["pc-0.1"]["alias"] == "pc"
    assert [name for name, each in own.items() if each.get("is-default")] == ["pc-0.1"]


def test_compat_properties_come_when_asked_for(framework: Framework) -> None:
    ours = machines(framework, "x86_64", "qemu64", compat_props=True)
    assert {"qom-type": "Haswell-x86_64-cpu", "property": "stepping", "value": "1"} in ours[
        "pc-q35-2.6"
    ]["compat-props"]
    assert ours["pc-q35-10.0"]["compat-props"] == []


@pytest.mark.parametrize(
    ("arch", "cpu", "alias"),
    [
        ("aarch64", "max", "virt"),
        ("ppc64", "power9_v2.0", "pseries"),
        ("s390x", "z13", "s390-ccw-virtio"),
    ],
)
def test_other_architectures_list_theirs(
    framework: Framework, arch: str, cpu: str, alias: str
) -> None:
    ours = machines(framework, arch, cpu)
    assert alias in {each.get("alias") for each in ours.values()}
    assert "none" in ours
    assert not any(name.startswith("pc-q35") for name in ours)


def test_command_line_options(framework: Framework) -> None:
    with framework.machine("none", cpu="qemu64", arch="x86_64", accel=None) as machine:
        probe = Direct(machine)
        (smp,) = probe.run("query-command-line-options", option="smp-opts")
        assert {"name": "maxcpus", "type": "number"} in smp["parameters"]
        names = [each["option"] for each in probe.run("query-command-line-options")]
        assert {"machine", "memory", "sandbox", "smp-opts"} <= set(names)
        with pytest.raises(QmpError, match=r"^invalid option name: nope$"):
            probe.run("query-command-line-options", option="nope")
