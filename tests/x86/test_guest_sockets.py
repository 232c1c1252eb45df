"""Whole sockets plugged into running kvm guests, and saved with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cpufw
import cpufw_x86
from cpufw.core.hotplug import SlotState
from cpufw.core.machine import Machine
from cpufw.errors import HotplugError, TopologyError

pytestmark = pytest.mark.kvm

DEMO = Path(cpufw_x86.__file__).parent / "guest" / "demo.bin"
SMP = "2,maxcpus=6,sockets=3,cores=2"
PATIENCE = 60.0  # seconds; far more than any step takes


def guest(machine: str = "pc", smp: str = SMP, **options: Any) -> Machine:
    return cpufw.Machine(
        machine, cpu="Haswell", smp=smp, kernel=DEMO, entry_mode="protected", **options
    )


def wait(machine: Machine, found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not found():
        outcome = machine.wait(0.01)
        assert outcome.reason == "timeout", outcome.message
        assert time.monotonic() < deadline, [slot.state.value for slot in machine.slots]


def states(machine: Machine, socket: int) -> set[SlotState]:
    return {slot.state for slot in machine.slots[2 * socket : 2 * socket + 2]}


def add_object(machine: Machine, name: str = "s1") -> None:
    machine.objects.add_child(name, machine.sockets.new("Haswell-x86_64-socket"))


def test_a_guest_brings_a_socket_online_and_gives_it_back() -> None:
    with guest() as machine:
        add_object(machine)
        machine.start()
        wait(machine, lambda: states(machine, 0) == {SlotState.ONLINE})
        for index in (1, 2, 1):
            machine.set(f"socket[{index}]", "/objects/s1")
            wait(machine, lambda: states(machine, index) == {SlotState.ONLINE})  # noqa: B023
            machine.set(f"socket[{index}]", "")
            wait(machine, lambda: not machine.get(f"socket[{index}]"))  # noqa: B023
        assert len(machine.cpus()) == 2


@pytest.mark.parametrize(
    ("kind", "place"),
    [("socket", {"socket_id": 2}), ("core", {"socket_id": 2, "core_id": 1})],
)
def test_machine_types_that_plug_more_than_a_thread(kind: str, place: dict[str, int]) -> None:
    with guest(f"pc-{kind}") as machine:
        driver = f"Haswell-x86_64-{kind}"
        assert {each["type"] for each in machine.hotpluggable_cpus()} == {driver}
        machine.start()
        wait(machine, lambda: states(machine, 0) == {SlotState.ONLINE})
        with pytest.raises(HotplugError, match=f"only in a {driver}|takes whole {kind}s"):
            machine.device_add("Haswell-x86_64-cpu", socket_id=1, core_id=0, thread_id=0)
        machine.device_add(driver, "it", **place)
        wait(machine, lambda: machine.slots[5].state is SlotState.ONLINE)
        machine.device_del("it")
        wait(machine, lambda: len(machine.cpus()) == 2)


def test_boot_cpus_fill_whole_sockets_there() -> None:
    with pytest.raises(TopologyError, match="3 CPUs do not fill whole sockets of 2 threads"):
        guest("pc-socket", "3,maxcpus=6,sockets=3,cores=2")


@pytest.mark.parametrize("kind", ["pc", "pc-socket", "pc-core"])
def test_a_saved_machine_has_its_sockets_again(kind: str, tmp_path: Path) -> None:
    with guest(kind) as machine:
        add_object(machine)
        machine.set("socket[1]", "/objects/s1")
        if kind != "pc":
            driver = f"Haswell-x86_64-{kind.removeprefix('pc-')}"
            machine.device_add(driver, "it", **machine.unit_ids(machine.slots[4]))
        paths = [cpu.path for cpu in machine.cpus()]
        machine.start()
        wait(machine, lambda: SlotState.ONLINE in states(machine, 1))
        machine.save(tmp_path / "saved")
    with cpufw.load_machine(tmp_path / "saved") as machine:
        assert [cpu.path for cpu in machine.cpus()] == paths
        assert machine.get("socket[1]") == "/objects/s1"
        machine.start()
        machine.set("socket[1]", "")
        wait(machine, lambda: not machine.get("socket[1]"))


def test_a_socket_that_lost_a_cpu_is_saved_so(tmp_path: Path) -> None:
    with guest() as machine:
        add_object(machine)
        machine.set("socket[1]", "/objects/s1")
        machine.eject(machine.slots[3])  # before the start nobody needs asking
        machine.start()
        machine.save(tmp_path / "saved")
    with cpufw.load_machine(tmp_path / "saved") as machine:
        assert [cpu.path for cpu in machine.cpus()][2:] == ["/objects/s1/thread[0]"]
        assert machine.slots[3].state is SlotState.EMPTY
