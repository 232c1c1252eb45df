"""Types over QMP: what there is, what each extends, and which properties objects have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qmp_direct import Direct

import cpufw
from cpufw.framework import default
from cpufw.monitor.errors import DeviceNotFoundError, QmpError


@pytest.fixture(scope="module")
def monitor() -> Iterator[Direct]:
    with cpufw.Machine("none", cpu="Haswell", smp="1,maxcpus=8,sockets=2,cores=2,threads=2") as m:
        yield Direct(m)


def names(monitor: Direct, **arguments: Any) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in monitor.run("qom-list-types", **arguments)}


def test_every_type_extends_another_and_the_first_is_object(monitor: Direct) -> None:
    known = names(monitor, abstract=True)
    for each in known.values():
        assert each.get("parent", "object") in known, each
    assert [each for each in known.values() if "parent" not in each] == [
        {"name": "object", "abstract": True}
    ]
    concrete = names(monitor)
    assert concrete == {name: each for name, each in known.items() if "abstract" not in each}


def test_every_model_has_its_type(monitor: Direct) -> None:
    cpus = names(monitor, implements="x86_64-cpu")
    assert cpus.keys() == set(default().registry.type_names("x86_64"))
    assert {each["parent"] for each in cpus.values()} == {"x86_64-cpu"}
    assert cpus.keys() == names(monitor, implements="cpu").keys()
    assert cpus.keys() < names(monitor, implements="device").keys()
    assert "x86_64-cpu" in names(monitor, implements="cpu", abstract=True)


@pytest.mark.parametrize(
    ("implements", "some"),
    [
        ("accel", {"kvm-accel"}),
        ("machine", {"none-machine", "pc-0.1-machine"}),
        ("generic-pc-machine", {"pc-0.1-machine", "pc-socket-0.1-machine"}),
        ("isa-device", {"isa-serial", "mc146818rtc"}),
        ("memory-backend", {"memory-backend-ram", "memory-backend-memfd"}),
        ("user-creatable", {"rng-random", "secret", "Haswell-x86_64-socket"}),
        ("CPUSocket", {"Haswell-x86_64-socket", "socket"}),
    ],
)
def test_types_are_found_by_what_they_extend_or_implement(
    monitor: Direct, implements: str, some: set[str]
) -> None:
    assert some <= names(monitor, implements=implements).keys()


def test_what_nobody_implements_is_no_error(monitor: Direct) -> None:
    assert monitor.run("qom-list-types", implements="nonsuch") == []


def test_a_cpu_type_tells_its_properties_with_the_models_defaults(monitor: Direct) -> None:
    found = monitor.run("device-list-properties", typename="Haswell-noTSX-x86_64-cpu")
    shown = {each["name"]: each for each in found}
    assert len(shown) == len(found)
    assert shown["rtm"]["type"] == shown["avx2"]["type"] == "bool"
    assert (shown["rtm"]["default-value"], shown["avx2"]["default-value"]) == (False, True)
    assert shown["min-xlevel2"]["type"] == "uint32"
    assert shown["unavailable-features"]["type"] == "strList"
    assert not {"type", "realized", "hotplugged", "hotpluggable"} & shown.keys()
    every = monitor.run("qom-list-properties", typename="Haswell-noTSX-x86_64-cpu")
    assert [each["name"] for each in every][:4] == [
        "type",
        "realized",
        "hotplugged",
        "hotpluggable",
    ]


def test_an_object_has_the_properties_of_its_type(monitor: Direct) -> None:
    path = "/machine/unattached/device[0]"
    kind = monitor.run("qom-get", path=path, property="type")
    of_type = monitor.run("qom-list-properties", typename=kind)
    of_object = monitor.run("qom-list", path=path)
    assert {(each["name"], each["type"]) for each in of_type} == {
        (each["name"], each["type"]) for each in of_object if not each["type"].startswith("child<")
    }


@pytest.mark.parametrize("name", ["memory-backend-file", "none-machine", "generic-pc-machine"])
def test_libvirt_gets_an_answer_for_what_it_always_asks(monitor: Direct, name: str) -> None:
    assert {"name": "type", "type": "string"} in monitor.run("qom-list-properties", typename=name)


@pytest.mark.parametrize(
    ("command", "typename", "error", "message"),
    [
        ("device-list-properties", "nonsuch", DeviceNotFoundError, "Device 'nonsuch' not found"),
        ("qom-list-properties", "nonsuch", DeviceNotFoundError, "Class 'nonsuch' not found"),
        *(
            ("device-list-properties", name, QmpError, "expects a non-abstract device type")
            for name in ("x86_64-cpu", "device", "secret", "none-machine")
        ),
    ],
)
def test_errors_about_types_are_qemus(
    monitor: Direct, command: str, typename: str, error: type[QmpError], message: str
) -> None:
    with pytest.raises(QmpError, match=message) as raised:
        monitor.run(command, typename=typename)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("arch", "model", "cpu"),
    [("aarch64", "cortex-a57", "cortex-a57-arm-cpu"), ("s390x", "z14", "z14-s390x-cpu")],
)
def test_other_architectures_have_their_own_types(arch: str, model: str, cpu: str) -> None:
    with cpufw.Machine("none", cpu=model, arch=arch) as machine:
        known = names(Direct(machine))
        assert cpu in known
        assert not {"Haswell-x86_64-cpu", "isa-serial"} & known.keys()


def test_a_machine_that_plugs_cores_has_the_type_of_a_core() -> None:
    with cpufw.Machine("pseries", cpu="power9") as machine:
        monitor = Direct(machine)
        cores = [name for name in names(monitor, implements="device") if "spapr-cpu-core" in name]
        assert cores == [monitor.run("query-hotpluggable-cpus")[0]["type"]]


@pytest.mark.kvm
@pytest.mark.parametrize("irqchip", ["on", "split"])
def test_what_a_board_shows_is_of_types_that_there_are(irqchip: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    options = {"kernel_irqchip": irqchip, "rng": True, "drives": [f"file={disk}"]}
    with cpufw.Machine("pc", cpu="Haswell", memory="16M", **options) as machine:
        monitor = Direct(machine)
        known = names(monitor, abstract=True)
        shown = []
        for path in ("/machine/unattached", "/objects", "/chardevs"):
            shown += [each["type"] for each in monitor.run("qom-list", path=path)][1:]
        kinds = {kind.removeprefix("child<").removesuffix(">") for kind in shown}
        assert kinds <= known.keys()
        assert kinds >= {"isa-serial", "mc146818rtc", "virtio-blk-device", "virtio-rng-device"}
        assert ("ioapic" in kinds) is (irqchip == "split")
        ram = monitor.run("qom-get", path="/machine", property="memory-backend")
        assert monitor.run("qom-get", path=ram, property="size") == 16 << 20
