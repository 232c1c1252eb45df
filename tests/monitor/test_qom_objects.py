"""The tree over QMP: paths, properties, and objects that users make."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qmp_direct import Direct

import cpufw
from cpufw.errors import CpufwError
from cpufw.monitor.errors import DeviceNotFoundError, QmpError

CPU = "/machine/unattached/device[0]"
SMP = "1,maxcpus=8,sockets=2,cores=2,threads=2"


@pytest.fixture
def monitor() -> Iterator[Direct]:
    with cpufw.Machine("none", cpu="Haswell", smp=SMP) as machine:
        yield Direct(machine)


def add(monitor: Direct, device: str = "cpu1") -> None:
    place = {"socket_id": 1, "core_id": 0, "thread_id": 1}
    monitor.run("device_add", driver="Haswell-x86_64-cpu", id=device, **place)


def listed(monitor: Direct, path: str) -> dict[str, str]:
    return {each["name"]: each["type"] for each in monitor.run("qom-list", path=path)}


def value(monitor: Direct, path: str, property: str) -> Any:
    return monitor.run("qom-get", path=path, property=property)


# --- paths -------------------------------------------------------------------------------


def test_the_root_has_what_qemus_root_has(monitor: Direct) -> None:
    assert listed(monitor, "/") == {
        "type": "string",
        "objects": "child<container>",
        "machine": "child<none-machine>",
        "chardevs": "child<container>",
    }
    assert listed(monitor, "/machine/peripheral") == {"type": "string"}
    add(monitor)
    assert listed(monitor, "/machine/peripheral") == {
        "type": "string",
        "cpu1": "child<Haswell-x86_64-cpu>",
    }


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "container"),
        ("//machine//peripheral/", "container"),
        ("machine", "none-machine"),
        ("peripheral", "container"),
        ("unattached/device[0]", "Haswell-x86_64-cpu"),
        ("/machine/topology/socket[1]/core[0]/thread[1]", "thread"),
        ("socket[1]/core[0]/thread[1]/cpu", "Haswell-x86_64-cpu"),
    ],
)
def test_paths_lead_through_children_and_links(monitor: Direct, path: str, kind: str) -> None:
    add(monitor)
    if path.startswith("socket"):  # two ways lead there: by the topology, and by a link
        with pytest.raises(QmpError, match="ambiguous"):
            listed(monitor, path)
        path = f"/machine/{path}"
    assert value(monitor, path, "type") == kind


@pytest.mark.parametrize("path", ["/nonsuch", "nonsuch", "/machine/type", "type", "/machine/x/y"])
def test_what_is_not_there_is_not_found(monitor: Direct, path: str) -> None:
    for command in (
        lambda: listed(monitor, path),
        lambda: value(monitor, path, "type"),
        lambda: monitor.run("qom-set", path=path, property="type", value=1),
    ):
        with pytest.raises(DeviceNotFoundError, match=f"Device '{path}' not found"):
            command()


def test_a_path_that_fits_several_objects_is_refused(monitor: Direct) -> None:
    place = {"socket_id": 1, "core_id": 0, "thread_id": 1}
    monitor.run("device_add", driver="Haswell-x86_64-cpu", **place)
    with pytest.raises(QmpError, match=r"Path 'device\[0\]' is ambiguous"):
        listed(monitor, "device[0]")
    with pytest.raises(DeviceNotFoundError, match=r"Device 'device\[0\]' not found"):
        value(monitor, "device[0]", "type")
    assert value(monitor, "peripheral-anon/device[0]", "hotplugged") is True


def test_a_very_long_path_takes_no_time(monitor: Direct) -> None:
    began = time.monotonic()
    for path in ("x/" * 100_000, "/" * 100_000 + "x", "/machine" + "/x" * 100_000):
        with pytest.raises(DeviceNotFoundError):
            value(monitor, path, "type")
    assert time.monotonic() - began < 2.0  # the machine may be busy


# --- properties --------------------------------------------------------------------------


def test_a_cpu_says_where_it_is_and_what_it_has(monitor: Direct) -> None:
    add(monitor)
    path = "/machine/peripheral/cpu1"
    shown = {name: value(monitor, path, name) for name in listed(monitor, path)}
    assert (shown["realized"], shown["hotplugged"], shown["hotpluggable"]) == (True, True, True)
    assert (shown["socket-id"], shown["core-id"], shown["thread-id"]) == (1, 0, 1)
    assert (shown["apic-id"], shown["family"], shown["vendor"]) == (5, 6, "GenuineIntel")
    assert (shown["avx2"], shown["avx512f"], shown["hypervisor"]) == (True, False, True)
    assert shown["unavailable-features"] == []
    assert value(monitor, CPU, "hotplugged") is False


def test_each_boolean_property_of_a_cpu_is_a_boolean(monitor: Direct) -> None:
    # libvirt reads all of them to learn what the guest got.
    kinds = {name: kind for name, kind in listed(monitor, CPU).items() if kind == "bool"}
    assert len(kinds) > 300
    assert {type(value(monitor, CPU, name)) for name in kinds} == {bool}


@pytest.mark.parametrize(
    ("path", "property", "given", "message"),
    [
        ("/machine", "nonsuch", 1, "Property 'none-machine.nonsuch' not found"),
        ("/machine", "type", "x", "Property 'none-machine.type' is not writable"),
        ("/machine", "peripheral", "x", "Property 'none-machine.peripheral' is not writable"),
        (CPU, "hotplugged", True, "Property 'Haswell-x86_64-cpu.hotplugged' is not writable"),
        (CPU, "unavailable-features", [], "unavailable-features' is not writable"),
        (CPU, "avx", True, "Attempt to set property 'avx' on anonymous device (type 'Hasw"),
        ("cpu1", "core-id", 0, "Attempt to set property 'core-id' on device 'cpu1' (type 'Hasw"),
        ("/machine", "socket[1]", 3, "Invalid parameter type for 'socket[1]', expected: string"),
        ("/machine", "socket[1]", "/nonsuch", "Device '/nonsuch' not found"),
        ("/machine", "socket[1]", "/machine", "expected a Haswell-x86_64-socket of /objects"),
    ],
)
def test_what_cannot_be_set_says_so(
    monitor: Direct, path: str, property: str, given: Any, message: str
) -> None:
    add(monitor)
    with pytest.raises(CpufwError) as raised:
        monitor.run("qom-set", path=path, property=property, value=given)
    assert message in str(raised.value)


def test_a_property_that_is_not_there_cannot_be_read(monitor: Direct) -> None:
    with pytest.raises(QmpError, match=r"Property 'none-machine\.nonsuch' not found"):
        value(monitor, "/machine", "nonsuch")


# --- objects that users make -------------------------------------------------------------


def test_an_object_is_made_read_and_deleted(monitor: Direct) -> None:
    monitor.run("object-add", qom_type="memory-backend-ram", id="m", size=4096)
    assert listed(monitor, "/objects")["m"] == "child<memory-backend-ram>"
    assert value(monitor, "m", "size") == 4096
    assert value(monitor, "m", "share") is False
    monitor.run("object-del", id="m")
    assert "m" not in listed(monitor, "/objects")


def test_a_secret_comes_from_a_file_or_is_given(monitor: Direct, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("abc")
    monitor.run("object-add", qom_type="secret", id="one", data="abc")
    monitor.run("object-add", qom_type="secret", id="two", file=str(file), format="raw")
    assert value(monitor, "one", "data") == "abc"
    assert value(monitor, "two", "file") == str(file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"qom_type": "nonsuch", "id": "a"}, "'qom-type' does not accept value 'nonsuch'"),
        ({"qom_type": "isa-serial", "id": "a"}, "'qom-type' does not accept value 'isa-serial'"),
        ({"qom_type": "memory-backend-ram", "id": "a"}, "Parameter 'size' is missing"),
        ({"qom_type": "memory-backend-ram", "id": "1x", "size": 1}, "'id' expects an identifier"),
        ({"qom_type": "memory-backend-ram", "id": "a b", "size": 1}, "expects an identifier"),
        ({"qom_type": "memory-backend-ram", "id": "a", "size": "1"}, "'size' expects uint64"),
        ({"qom_type": "memory-backend-ram", "id": "a", "size": 0}, "doesn't take value '0'"),
        ({"qom_type": "memory-backend-ram", "id": "a", "size": -1}, "'size' expects uint64"),
        ({"qom_type": "memory-backend-ram", "id": "a", "size": 1 << 64}, "'size' expects uint64"),
        ({"qom_type": "memory-backend-ram", "id": "a", "size": 1, "foo": 1}, "'foo' is unexpected"),
        ({"qom_type": "memory-backend-ram", "size": 1}, "Parameter 'id' is missing"),
        ({"qom_type": "memory-backend-ram", "id": "a", "size": 1, "share": 1}, "boolean"),
        ({"qom_type": "rng-random", "id": "a", "filename": "/nonsuch"}, "Could not open '/nonsuch"),
        ({"qom_type": "secret", "id": "a"}, "Either 'file' or 'data' must be provided"),
        ({"qom_type": "secret", "id": "a", "file": "/etc", "data": "x"}, "exclude each other"),
        ({"qom_type": "Haswell-x86_64-socket", "id": "a", "cores": 9}, "cores=9 does not fit"),
        ({"qom_type": "EPYC-x86_64-socket", "id": "a"}, "sockets are Haswell-x86_64-socket"),
        ({"qom_type": "Haswell-x86_64-cpu", "id": "a"}, "does not accept value"),
    ],
)
def test_an_object_that_is_not_right_is_not_made(
    monitor: Direct, arguments: dict[str, Any], message: str
) -> None:
    before = listed(monitor, "/objects")
    with pytest.raises(CpufwError) as raised:
        monitor.run("object-add", **arguments)
    assert message in str(raised.value)
    assert listed(monitor, "/objects") == before


def test_ids_of_objects_are_used_once(monitor: Direct) -> None:
    monitor.run("object-add", qom_type="rng-random", id="r")
    with pytest.raises(QmpError, match="attempt to add duplicate property 'r' to object"):
        monitor.run("object-add", qom_type="secret", id="r", data="x")
    with pytest.raises(QmpError, match="object 'nonsuch' not found"):
        monitor.run("object-del", id="nonsuch")


# --- sockets -----------------------------------------------------------------------------


def set_link(monitor: Direct, index: int, path: str) -> None:
    monitor.run("qom-set", path="/machine", property=f"socket[{index}]", value=path)


def test_the_life_of_a_socket(monitor: Direct) -> None:
    monitor.run("object-add", qom_type="Haswell-x86_64-socket", id="s1", cores=2, threads=2)
    assert listed(monitor, "/machine")["socket[1]"] == "link<CPUSocket>"
    assert value(monitor, "/machine", "socket[0]") == "/machine/topology/socket[0]"
    assert value(monitor, "/machine", "socket[1]") == ""
    set_link(monitor, 1, "/objects/s1")
    assert value(monitor, "/machine", "socket[1]") == "/objects/s1"
    assert value(monitor, "s1", "socket-id") == 1
    paths = [each["qom-path"] for each in monitor.run("query-cpus-fast")]
    assert paths[1:] == [f"/objects/s1/thread[{n}]" for n in range(4)]
    with pytest.raises(QmpError, match="object 's1' is in use, can not be deleted"):
        monitor.run("object-del", id="s1")
    set_link(monitor, 1, "")
    assert [data["path"] for name, data in monitor.events if name == "DEVICE_DELETED"][-1] == (
        "/objects/s1"
    )
    assert value(monitor, "/machine", "socket[1]") == ""
    monitor.run("object-del", id="s1")


def test_the_errors_of_a_link_say_what_is_in_the_way(monitor: Direct) -> None:
    for name in ("s1", "s2"):
        monitor.run("object-add", qom_type="Haswell-x86_64-socket", id=name)
    set_link(monitor, 1, "s1")
    for index, path, message in (
        (1, "s2", r"socket\[1\] is taken by /objects/s1 \(present\)"),
        (0, "s2", r"socket\[0\] is taken by /machine/unattached/device\[0\]"),
        (0, "", r"CPUs that came one by one"),
    ):
        with pytest.raises(CpufwError, match=message):
            set_link(monitor, index, path)
    assert value(monitor, "s2", "socket-id") == -1
