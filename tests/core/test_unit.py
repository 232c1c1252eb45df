"""Units above the thread: plugged in full or not at all, unplugged together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.core.arch import PlugUnit
from cpufw.core.cpu import CPUState
from cpufw.core.hotplug import HotplugEventKind as Kind
from cpufw.core.hotplug import Slot, SlotState, Veto
from cpufw.core.machine import Machine
from cpufw.core.topology import TopologyLevel
from cpufw.errors import HotplugError, NotFoundError, PropertyError, TopologyError

from .lab import GuestBoard, LabCPU, lab_machine, snapshot

SMP = "4,maxcpus=16,sockets=2,cores=2,threads=4"

CORES = PlugUnit(
    TopologyLevel.CORE,
    "{model}-lab-core",
    lambda _, slot: {
        "socket-id": slot[TopologyLevel.SOCKET],
        "core-id": slot[TopologyLevel.CORE],
    },
)
SOCKETS = PlugUnit(
    TopologyLevel.SOCKET,
    "{model}-lab-socket",
    lambda topology, slot: {"socket-id": 10 * topology.index(slot)},
)


def bench(
    unit: PlugUnit = CORES,
    smp: str = SMP,
    vetoes: Sequence[Veto] = (),
    cpu_base: type[CPUState] = LabCPU,
) -> Machine:
    return lab_machine(smp, plug_unit=unit, vetoes=vetoes, cpu_base=cpu_base)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with bench() as machine:
        yield machine


def guest(machine: Machine) -> GuestBoard:
    assert isinstance(machine.board, GuestBoard)
    return machine.board


def states(machine: Machine) -> list[str]:
    """The state of each core's threads, where they are the same."""
    each = [slot.state.value for slot in machine.slots]
    return ["/".join(dict.fromkeys(each[first : first + 4])) for first in range(0, len(each), 4)]


# --- plugging ----------------------------------------------------------------------------


def test_a_unit_brings_all_its_threads(machine: Machine) -> None:
    realized: list[CPUState] = []
    machine.on_realized = realized.append
    first = machine.device_add("one-lab-core", "c", socket_id=1, core_id=0)
    assert [cpu.path for cpu in realized] == [
        f"/machine/peripheral/c/thread[{n}]" for n in range(4)
    ]
    assert first is realized[0] is machine.slots[8].cpu
    assert machine.resolve("topology/socket[1]/core[0]/thread[3]").get("cpu") == realized[3].path
    assert guest(machine).plugged[-4:] == [(index, True) for index in range(8, 12)]
    assert states(machine) == ["present", "empty", "present", "empty"]
    events = [event for event in machine.events(timeout=0) if event.slot >= 8]
    assert {event.device for event in events} == {"c"}


def test_units_without_an_id_go_where_such_devices_go(machine: Machine) -> None:
    first = machine.device_add("one-lab-core", socket_id=0, core_id=1)
    assert first.path == "/machine/peripheral-anon/device[0]/thread[0]"
    assert machine.cpus()[3].path == "/machine/unattached/device[0]/thread[3]"


def test_each_place_is_a_recipe_for_device_add(machine: Machine) -> None:
    for entry in machine.hotpluggable_cpus():
        assert entry["vcpus-count"] == 4
        if "qom-path" not in entry:
            machine.device_add(entry["type"], **entry["props"])
    assert states(machine) == ["present"] * 4
    assert all("qom-path" in entry for entry in machine.hotpluggable_cpus())


def test_a_unit_may_be_a_socket() -> None:
    with bench(SOCKETS, "8,maxcpus=16,sockets=2,cores=2,threads=4") as machine:
        assert machine.hotpluggable_cpus()[0] == {
            "props": {"socket-id": 80},
            "vcpus-count": 8,
            "type": "one-lab-socket",
        }
        machine.device_add("one-lab-socket", "s", socket_id=80)
        assert len(machine.cpus()) == 16
        with pytest.raises(HotplugError, match="socket-id=1 is not there, expected a multiple of"):
            machine.device_add("one-lab-socket", "t", socket_id=1)


def test_boot_cpus_fill_whole_units() -> None:
    with pytest.raises(TopologyError, match="6 CPUs do not fill whole cores of 4 threads"):
        bench(smp="6,maxcpus=16,sockets=2,cores=2,threads=4")


def reserved(index: int, kind: Kind) -> Veto:
    def veto(slot: Slot, asked: Kind) -> str | None:
        return "reserved" if (slot.index, asked) == (index, kind) else None

    return veto


def broken_thread(index: int, step: str) -> type[CPUState]:
    class Broken(LabCPU):
        def _accelerate(self) -> Any:
            if self.slot is not None and self.slot.index == index and step == "accelerate":
                raise RuntimeError("this thread is broken")
            return super()._accelerate()

    return Broken


@pytest.mark.parametrize("index", [8, 9, 11])
@pytest.mark.parametrize("why", ["veto", "thread"])
def test_if_one_thread_fails_none_is_plugged(index: int, why: str) -> None:
    vetoes = [reserved(index, Kind.PLUGGING)] if why == "veto" else []
    base = broken_thread(index, "accelerate") if why == "thread" else LabCPU
    with bench(vetoes=vetoes, cpu_base=base) as machine:
        before = snapshot(machine)
        with pytest.raises((HotplugError, RuntimeError), match=r"reserved|broken"):
            machine.device_add("one-lab-core", "c", socket_id=1, core_id=0)
        after = snapshot(machine)
        occupants = [(state, cpu) for state, cpu, _ in before.pop("slots")]
        assert [(state, cpu) for state, cpu, _ in after.pop("slots")] == occupants
        assert after == before
        assert machine.hotpluggable_cpus()[1].keys() == {"props", "vcpus-count", "type"}
        machine.device_add("one-lab-core", "c", socket_id=1, core_id=1)


def test_a_board_that_fails_leaves_no_unit(machine: Machine) -> None:
    guest(machine).broken = {"cpu_plugged"}
    with pytest.raises(RuntimeError, match="cpu_plugged is broken"):
        machine.device_add("one-lab-core", "c", socket_id=1, core_id=0)
    guest(machine).broken = set()
    assert states(machine) == ["present", "empty", "empty", "empty"]
    assert list(machine.resolve("peripheral").children()) == []
    machine.device_add("one-lab-core", "c", socket_id=1, core_id=0)


@pytest.mark.parametrize(
    ("driver", "properties", "message"),
    [
        ("one-lab-core", {"socket-id": 0, "core-id": 0}, "socket-id=0, core-id=0 is taken by /m"),
        ("one-lab-core", {"socket-id": 0, "core-id": 2}, "core-id=2 is not there, expected 0 to 1"),
        ("one-lab-core", {"core-id": 0}, "socket-id is not set, expected 0 to 1"),
        ("two-lab-core", {"socket-id": 1, "core-id": 0}, "takes whole cores, one-lab-core"),
        ("one-lab-cpu", {"socket-id": 1, "core-id": 0}, "takes whole cores, one-lab-core"),
        ("one-lab-core", {"socket-id": 1, "core-id": 0, "id": "9"}, "device id '9' is not valid"),
    ],
)
def test_a_unit_that_does_not_fit_changes_nothing(
    machine: Machine, driver: str, properties: dict[str, Any], message: str
) -> None:
    before = snapshot(machine)
    with pytest.raises(HotplugError, match=message):
        machine.device_add(driver, **properties)
    assert snapshot(machine) == before


def test_ids_are_not_used_twice_and_properties_are_checked(machine: Machine) -> None:
    machine.device_add("one-lab-core", "c", socket_id=1, core_id=0)
    before = snapshot(machine)
    with pytest.raises(HotplugError, match="device id 'c' is in use"):
        machine.device_add("one-lab-core", "c", socket_id=1, core_id=1)
    with pytest.raises(HotplugError, match="is taken by c"):
        machine.device_add("one-lab-core", "d", socket_id=1, core_id=0)
    with pytest.raises(PropertyError, match="'speed' is not known"):
        machine.device_add("one-lab-core", "d", socket_id=1, core_id=1, speed=3)
    assert snapshot(machine) == before


def test_a_thread_is_not_plugged_by_itself(machine: Machine) -> None:
    cpu = machine.cpu_class()
    with pytest.raises(HotplugError, match="cannot be plugged by itself, only in a one-lab-core"):
        cpu.realize(machine, machine.slots[9])
    assert machine.slots[9].state is SlotState.EMPTY


# --- unplugging --------------------------------------------------------------------------


@pytest.fixture
def plugged(machine: Machine) -> Machine:
    machine.device_add("one-lab-core", "c", socket_id=1, core_id=0)
    return machine


@pytest.mark.parametrize(
    "ask",
    [lambda machine: machine.device_del("c"), lambda m: m.request_unplug(m.slots[10])],
    ids=["device_del", "one of its threads"],
)
def test_a_unit_is_asked_to_leave_as_a_whole(
    plugged: Machine, ask: Callable[[Machine], None]
) -> None:
    ask(plugged)
    assert guest(plugged).asked == [8, 9, 10, 11]
    assert states(plugged)[2] == "unplug-requested"
    for index in (11, 8, 10):
        plugged.eject(plugged.slots[index])
        assert plugged.resolve("peripheral").child("c") is not None
    with pytest.raises(HotplugError, match="is taken by c"):
        plugged.device_add("one-lab-core", "d", socket_id=1, core_id=0)
    plugged.eject(plugged.slots[9])
    assert plugged.resolve("peripheral").child("c") is None
    with pytest.raises(NotFoundError):
        plugged.device_del("c")
    plugged.device_add("one-lab-core", "c", socket_id=1, core_id=0)


def test_if_one_thread_may_not_leave_none_is_asked() -> None:
    with bench(vetoes=[reserved(10, Kind.UNPLUG_REQUESTED)]) as machine:
        machine.device_add("one-lab-core", "c", socket_id=1, core_id=0)
        with pytest.raises(HotplugError, match="reserved"):
            machine.device_del("c")
        assert guest(machine).asked == []
        assert states(machine)[2] == "present"


def test_the_unit_of_the_boot_cpu_stays(machine: Machine) -> None:
    with pytest.raises(HotplugError, match="the boot CPU"):
        machine.request_unplug(machine.slots[3])
    assert states(machine)[0] == "present"


def test_a_request_is_taken_back_for_all_threads(plugged: Machine) -> None:
    with pytest.raises(HotplugError, match="'c' has not been asked to leave"):
        plugged.withdraw_unplug("c")
    plugged.device_del("c")
    plugged.withdraw_unplug("c")
    assert states(plugged)[2] == "present"
    assert guest(plugged).asked == []


def test_what_the_guest_refused_for_one_thread_is_asked_of_all_again(plugged: Machine) -> None:
    plugged.device_del("c")
    for index in (8, 9):
        plugged.eject(plugged.slots[index])
    plugged.unplug_refused(plugged.slots[10])
    plugged.device_del("c")
    assert guest(plugged).asked == [8, 9, 10, 11, 10, 11]
    for index in (10, 11):
        plugged.eject(plugged.slots[index])
    assert states(plugged) == ["present", "empty", "empty", "empty"]


STEP = st.tuples(
    st.sampled_from(["plug", "break", "ask", "withdraw", "leave", "refuse"]),
    st.integers(4, 15),
)


@given(st.lists(STEP, max_size=30))
def test_whatever_happens_a_unit_is_there_as_long_as_one_of_its_threads(
    steps: list[tuple[str, int]],
) -> None:
    with bench() as machine:
        for action, index in steps:
            slot = machine.slots[index]
            place = {level: slot.id.props()[level] for level in ("socket-id", "core-id")}
            name = f"c{index // 4}"
            guest(machine).broken = {"cpu_plugged"} if action == "break" else set()
            with suppress(HotplugError, NotFoundError, RuntimeError):
                if action in ("plug", "break"):
                    machine.device_add("one-lab-core", name, **place)
                elif action == "ask":
                    machine.device_del(name)
                elif action == "withdraw":
                    machine.withdraw_unplug(name)
                elif action == "leave":
                    machine.eject(slot)
                else:
                    machine.unplug_refused(slot)
            for number, entry in enumerate(reversed(machine.hotpluggable_cpus())):
                group = machine.slots[4 * number : 4 * number + 4]
                cpus = [each.cpu for each in group if each.cpu is not None]
                assert ("qom-path" in entry) == bool(cpus)
                assert {cpu.path.rpartition("/")[0] for cpu in cpus} <= {entry.get("qom-path")}
                assert [each.cpu is None for each in group] == [
                    each.state is SlotState.EMPTY for each in group
                ]
            assert len(list(machine.resolve("peripheral").children())) == len(
                [entry for entry in machine.hotpluggable_cpus()[:-1] if "qom-path" in entry]
            )
