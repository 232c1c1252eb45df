"""Cores of pseries come and go whole, in the conversation that QEMU 10.0.2 has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cpufw.core.machine import Machine
from cpufw.errors import CpufwError, NotFoundError
from cpufw.framework import Framework

CORE = "power10_v2.0-spapr-cpu-core"


@pytest.fixture
def machine(framework: Framework) -> Iterator[Machine]:
    # the topology of the reference's transcript
    with framework.machine("pseries", smp="2,maxcpus=8,sockets=2,cores=2,threads=2") as machine:
        yield machine


def shown(*plugged: tuple[int, str]) -> list[dict[str, Any]]:
    paths = {0: "/machine/unattached/device[0]", **dict(plugged)}
    return [
        {
            "props": {"core-id": core, "node-id": 0},
            "vcpus-count": 2,
            "type": CORE,
            **({"qom-path": paths[core]} if core in paths else {}),
        }
        for core in (6, 4, 2, 0)
    ]


def test_a_core_is_plugged_and_unplugged_with_its_threads(machine: Machine) -> None:
    assert machine.hotpluggable_cpus() == shown()
    first = machine.device_add(CORE, "a", core_id=2)
    machine.device_add(CORE, "i", **{"core-id": 4, "node-id": 0, "nr-threads": 2})
    assert machine.hotpluggable_cpus() == shown(
        (2, "/machine/peripheral/a"), (4, "/machine/peripheral/i")
    )
    assert first.path == "/machine/peripheral/a/thread[0]"
    assert [(cpu.cpu_index, cpu.arch_id, cpu.path) for cpu in machine.cpus()] == [
        (0, 0, "/machine/unattached/device[0]/thread[0]"),
        (1, 1, "/machine/unattached/device[0]/thread[1]"),
        (2, 2, "/machine/peripheral/a/thread[0]"),
        (3, 3, "/machine/peripheral/a/thread[1]"),
        (4, 4, "/machine/peripheral/i/thread[0]"),
        (5, 5, "/machine/peripheral/i/thread[1]"),
    ]
    core = machine.resolve("/machine/peripheral/i")
    assert (core.get("type"), core.get("core-id"), core.get("nr-threads")) == (CORE, 4, 2)
    machine.device_del("a")
    assert machine.hotpluggable_cpus() == shown((4, "/machine/peripheral/i"))
    with pytest.raises(NotFoundError, match="device id 'a' is not known"):
        machine.device_del("a")


@pytest.mark.parametrize(
    ("driver", "properties", "message"),
    [
        (
            CORE,
            {"core-id": 0},
            f"{CORE}: core-id=0, node-id=0 is taken by /machine/unattached/device[0] (present)",
        ),
        (CORE, {"core-id": 3}, "core-id=3 is not there, expected a multiple of 2 up to 6"),
        (CORE, {"core-id": 99}, "core-id=99 is not there, expected a multiple of 2 up to 6"),
        (CORE, {}, "core-id is not set, expected a multiple of 2 up to 6"),
        (
            "power9_v2.0-spapr-cpu-core",
            {"core-id": 4},
            f"power9_v2.0-spapr-cpu-core cannot be plugged: this machine takes whole cores, {CORE}",
        ),
        ("power10_v2.0-powerpc64-cpu", {"core-id": 4}, "this machine takes whole cores"),
        (
            CORE,
            {"core-id": 4, "nr-threads": 4},
            "nr-threads=4 does not fit: a core of this machine has 2 threads",
        ),
        (
            CORE,
            {"core-id": 4, "vsx": False},
            "'vsx' is not known; there is core-id, node-id, nr-threads",
        ),
        (CORE, {"core-id": 4, "node-id": 1}, "node-id=1 is not there, expected 0"),
        (CORE, {"core-id": "two"}, "core-id=two is not valid, expected a whole number"),
    ],
)
def test_what_cannot_be_plugged_changes_nothing(
    machine: Machine, driver: str, properties: dict[str, Any], message: str
) -> None:
    with pytest.raises(CpufwError) as caught:
        machine.device_add(driver, "x", **properties)
    assert message in str(caught.value)
    assert machine.hotpluggable_cpus() == shown()
    assert len(machine.cpus()) == 2


def test_the_boot_core_stays(machine: Machine) -> None:
    with pytest.raises(CpufwError, match="the boot CPU"):
        machine.request_unplug(machine.slots[1])
    assert len(machine.cpus()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpu": "970fx"}, "pseries-10.0 has no core of CPU model '970fx_v3.1'"),
        ({"cpu": "g4"}, "pseries-10.0 has no core of CPU model '7400_v2.9'"),
        (
            {"smp": "3,maxcpus=8,cores=4,threads=2"},
            "--smp: 3 CPUs do not fill whole cores of 2 threads",
        ),
        ({"smp": "3,threads=3"}, "pseries-10.0 has no cores of 3 threads, only a power of 2"),
        ({"smp": "4097"}, "exceed this machine's maximum of 4096"),
        ({"cpu": "power10,compat-mode=power11"}, "has no compatibility mode power11"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(
    framework: Framework, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CpufwError) as caught:
        framework.machine("pseries", **options)
    assert message in str(caught.value)


def test_plugged_cores_are_as_the_boot_core(framework: Framework) -> None:
    smp = "4,maxcpus=8,cores=2,threads=4"
    with framework.machine("pseries", cpu="POWER9,compat-mode=power8", smp=smp) as machine:
        machine.device_add("power9_v2.2-spapr-cpu-core", "c", core_id=4)
        assert {vars(cpu)["cpu_version"] for cpu in machine.cpus()} == {0x0F000004}
        assert {vars(cpu)["pvr"] for cpu in machine.cpus()} == {0x004E1202}
        assert len(machine.cpus()) == 8
