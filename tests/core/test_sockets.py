"""Whole sockets: made by a user, plugged and unplugged by the machine's links."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.core.arch import MachineType
from cpufw.core.board import BareBoard
from cpufw.core.cpu import CPUState
from cpufw.core.hotplug import HotplugEventKind as Kind
from cpufw.core.hotplug import Slot, Veto
from cpufw.core.machine import Machine
from cpufw.core.sockets import CPUSocket
from cpufw.core.topology import parse_smp
from cpufw.errors import CpufwError, HotplugError, PropertyError

from .lab import LEVELS, GuestBoard, LabCPU, lab_machine, registry, snapshot
from .test_unit import CORES, broken_thread, guest, reserved

SMP = "1,maxcpus=12,sockets=3,cores=2,threads=2"


def bench(
    vetoes: Sequence[Veto] = (), cpu_base: type[CPUState] = LabCPU, board: Any = GuestBoard
) -> Machine:
    return lab_machine(SMP, vetoes=vetoes, cpu_base=cpu_base, board=board)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with bench() as machine:
        yield machine


def made(machine: Machine, name: str = "s1", **contents: Any) -> CPUSocket:
    socket = machine.sockets.new("one-lab-socket", **contents)
    machine.objects.add_child(name, socket)
    return socket


def states(machine: Machine, socket: int) -> set[str]:
    return {slot.state.value for slot in machine.slots[4 * socket : 4 * socket + 4]}


# --- plugging ----------------------------------------------------------------------------


def test_setting_a_link_plugs_every_thread_of_the_socket(machine: Machine) -> None:
    socket = made(machine, cores=2, threads=2)
    realized: list[CPUState] = []
    machine.on_realized = realized.append
    machine.set("socket[1]", "/objects/s1")
    assert machine.get("socket[1]") == "/objects/s1"
    assert [cpu.path for cpu in realized] == [f"/objects/s1/thread[{n}]" for n in range(4)]
    assert realized == machine.cpus()[1:]
    assert guest(machine).plugged[1:] == [(index, True) for index in range(4, 8)]
    place = machine.resolve("topology/socket[1]/core[1]/thread[0]")
    assert place.get("cpu") == "/objects/s1/thread[2]"
    assert socket.get("socket-id") == 1
    assert socket.get("realized") is socket.get("hotplugged") is True


def test_the_guest_hears_of_a_socket_only_when_all_its_cpus_work(machine: Machine) -> None:
    since = machine.log.seq
    machine.set("socket[2]", made(machine))
    kinds = [event.kind for event in machine.events(since, timeout=0)]
    assert kinds == [Kind.PLUGGING] * 4 + [Kind.PRESENT] * 4


def test_a_link_shows_what_fills_its_socket(machine: Machine) -> None:
    shown = [machine.get(f"socket[{n}]") for n in range(3)]
    assert shown == ["/machine/topology/socket[0]", "", ""]
    machine.device_add("one-lab-cpu", "c", socket_id=2, core_id=1, thread_id=0)
    assert machine.get("socket[2]") == "/machine/topology/socket[2]"
    assert machine.list_properties()["socket[2]"] == "link<CPUSocket>"


@pytest.mark.parametrize(
    ("index", "holder"),
    [(0, "/machine/unattached/device"), (1, "/objects/s1 "), (2, "/machine/peripheral/c ")],
)
def test_a_filled_socket_takes_no_other_and_says_what_is_there(
    machine: Machine, index: int, holder: str
) -> None:
    machine.set("socket[1]", made(machine))
    machine.device_add("one-lab-cpu", "c", socket_id=2, core_id=1, thread_id=0)
    made(machine, "s2")
    before = snapshot(machine)
    with pytest.raises(HotplugError) as raised:
        machine.set(f"socket[{index}]", "/objects/s2")
    assert f"socket[{index}] is taken by {holder}" in str(raised.value)
    assert snapshot(machine) == before


def test_a_socket_is_in_one_place_at_a_time(machine: Machine) -> None:
    machine.set("socket[1]", made(machine))
    before = snapshot(machine)
    with pytest.raises(HotplugError, match=r"/objects/s1 is in socket\[1\] already"):
        machine.set("socket[2]", "/objects/s1")
    assert snapshot(machine) == before


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/objects/nothing", "'/objects/nothing' is not known"),
        ("/machine", "is a lab-machine, expected a one-lab-socket"),
        ("/machine/topology/socket[1]", "is a socket, expected a one-lab-socket"),
    ],
)
def test_only_a_socket_can_be_plugged(machine: Machine, value: str, message: str) -> None:
    before = snapshot(machine)
    with pytest.raises(CpufwError, match=message):
        machine.set("socket[1]", value)
    assert snapshot(machine) == before


@pytest.mark.parametrize(
    ("type_name", "contents", "message"),
    [
        ("one-lab-socket", {"cores": 3}, "cores=3 does not fit: in a socket of this machine it"),
        ("one-lab-socket", {"threads": -1}, "out of range"),
        ("one-lab-socket", {"speed": 1}, "'speed' is not known"),
        ("two-lab-socket", {}, "two-lab-socket does not fit: this machine's sockets are one-lab"),
    ],
)
def test_a_socket_of_another_kind_cannot_be_made(
    machine: Machine, type_name: str, contents: dict[str, int], message: str
) -> None:
    with pytest.raises((HotplugError, PropertyError), match=message):
        machine.sockets.new(type_name, **contents)


def test_there_is_a_link_for_each_socket_and_no_more(machine: Machine) -> None:
    with pytest.raises(HotplugError, match=r"this machine has socket\[0\] to socket\[2\]"):
        machine.plug_socket(3, made(machine))
    assert machine.resolve("/objects/s1").get("socket-id") == -1


@pytest.mark.parametrize("index", [4, 5, 7])
@pytest.mark.parametrize("why", ["veto", "thread", "board"])
def test_if_one_thread_fails_the_socket_stays_empty(index: int, why: str) -> None:
    vetoes = [reserved(index, Kind.PLUGGING)] if why == "veto" else []
    base = broken_thread(index, "accelerate") if why == "thread" else LabCPU
    with bench(vetoes, base) as machine:
        socket = made(machine)
        if why == "board":
            guest(machine).broken = {"cpu_plugged"}
        before = snapshot(machine)
        with pytest.raises((HotplugError, RuntimeError), match=r"reserved|broken"):
            machine.set("socket[1]", "/objects/s1")
        assert snapshot(machine) == before
        assert guest(machine).plugged == [(0, False)]
        guest(machine).broken = set()
        machine.set("socket[2]", socket)
        assert states(machine, 2) == {"present"}


class FailingBoard(GuestBoard):
    """Tells its guest of a socket's first two CPUs, and breaks at the third."""

    def cpu_plugged(self, slot: Slot, hotplugged: bool) -> None:
        if slot.index == 6:
            self.broken = {"cpu_plugged"}
        super().cpu_plugged(slot, hotplugged)


def test_cpus_that_the_guest_was_told_of_are_taken_away_again() -> None:
    with bench(board=FailingBoard) as machine:
        made(machine)
        before = snapshot(machine)
        since = machine.log.seq
        with pytest.raises(RuntimeError, match="cpu_plugged is broken"):
            machine.set("socket[1]", "/objects/s1")
        after = snapshot(machine)
        for seen in (before, after):
            seen["slots"] = [(state, cpu) for state, cpu, _ in seen["slots"]]
        assert after == before
        last = {event.slot: event.kind for event in machine.events(since, timeout=0)}
        assert [last[index] for index in range(4, 8)] == [Kind.UNPLUGGED] * 2 + [
            Kind.PLUG_FAILED
        ] * 2


# --- unplugging --------------------------------------------------------------------------


@pytest.fixture
def linked(machine: Machine) -> Machine:
    machine.set("socket[1]", made(machine))
    return machine


def test_clearing_a_link_asks_for_all_of_it_and_waits(linked: Machine) -> None:
    linked.set("socket[1]", "")
    assert guest(linked).asked == [4, 5, 6, 7]
    for index in (7, 4, 5):
        linked.eject(linked.slots[index])
        assert linked.get("socket[1]") == "/objects/s1"
    linked.eject(linked.slots[6])
    assert linked.get("socket[1]") == ""
    assert linked.resolve("/objects/s1").get("socket-id") == -1
    linked.set("socket[2]", "/objects/s1")
    assert states(linked, 2) == {"present"}


def test_a_refusal_leaves_the_link_and_what_is_left_can_be_asked_again(linked: Machine) -> None:
    linked.set("socket[1]", None)
    linked.eject(linked.slots[7])
    for index in (4, 5, 6):
        linked.unplug_refused(linked.slots[index])
    assert linked.get("socket[1]") == "/objects/s1"
    with pytest.raises(HotplugError, match=r"socket\[1\] is taken by /objects/s1 \(online\)"):
        linked.set("socket[1]", made(linked, "s2"))
    guest(linked).asked.clear()
    linked.set("socket[1]", "")
    assert guest(linked).asked == [4, 5, 6]


def test_asking_one_thread_to_leave_asks_the_whole_socket(linked: Machine) -> None:
    linked.request_unplug(linked.slots[6])
    assert states(linked, 1) == {"unplug-requested"}


def test_clearing_an_empty_link_does_nothing(machine: Machine) -> None:
    before = snapshot(machine)
    machine.set("socket[2]", "")
    assert snapshot(machine) == before


def test_cpus_that_came_one_by_one_are_not_asked_as_a_socket(machine: Machine) -> None:
    machine.device_add("one-lab-cpu", "c", socket_id=2, core_id=1, thread_id=0)
    before = snapshot(machine)
    with pytest.raises(HotplugError, match=r"came one by one.*/machine/peripheral/c"):
        machine.set("socket[2]", "")
    assert snapshot(machine) == before


def test_a_veto_of_one_thread_leaves_all_of_them() -> None:
    with bench([reserved(6, Kind.UNPLUG_REQUESTED)]) as machine:
        machine.set("socket[1]", made(machine))
        with pytest.raises(HotplugError, match="reserved"):
            machine.set("socket[1]", "")
        assert guest(machine).asked == []
        assert states(machine, 1) == {"present"}


def test_a_machine_that_plugs_cores_takes_whole_sockets_too() -> None:
    known = registry()
    kind = MachineType("lab", "lab", "a bench", "one", 64, GuestBoard, plug_unit=CORES)
    topology = parse_smp("2,maxcpus=8,sockets=2,cores=2,threads=2", LEVELS, 64)
    with Machine(kind, known.cpu_class("one-lab-cpu"), known, topology) as machine:
        machine.set("socket[1]", made(machine))
        assert states(machine, 1) == {"present"}
        with pytest.raises(HotplugError, match="is taken by /objects/s1"):
            machine.device_add("one-lab-core", "c", socket_id=1, core_id=1)
        machine.device_add("one-lab-core", "c", socket_id=0, core_id=1)
        assert machine.get("socket[0]") == "/machine/topology/socket[0]"


# --- laws --------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 2), min_size=1, max_size=6))
def test_plug_then_unplug_is_the_identity(order: list[int]) -> None:
    with bench(board=BareBoard) as machine:
        made(machine)
        fresh = snapshot(machine)
        fresh.pop("slots")  # a slot remembers who was last in it
        for index in order:
            machine.set(f"socket[{index}]", "/objects/s1")
            machine.set(f"socket[{index}]", "")
            after = snapshot(machine)
            after.pop("slots")
            assert after == fresh


STEP = st.tuples(
    st.sampled_from(["link", "break", "clear", "add", "ask", "leave", "refuse"]),
    st.integers(4, 11),
    st.sampled_from(["s1", "s2"]),
)


@given(st.lists(STEP, max_size=40))
def test_whatever_happens_a_link_leads_to_what_is_there(steps: list[tuple[str, int, str]]) -> None:
    with bench() as machine:
        sockets = {name: made(machine, name) for name in ("s1", "s2")}
        for action, index, name in steps:
            slot = machine.slots[index]
            guest(machine).broken = {"cpu_plugged"} if action == "break" else set()
            with suppress(CpufwError, RuntimeError):
                if action in ("link", "break"):
                    machine.set(f"socket[{index // 4}]", f"/objects/{name}")
                elif action == "clear":
                    machine.set(f"socket[{index // 4}]", "")
                elif action == "add":
                    machine.device_add("one-lab-cpu", **slot.id.props())
                elif action == "ask":
                    machine.request_unplug(slot)
                elif action == "leave":
                    machine.eject(slot)
                else:
                    machine.unplug_refused(slot)
            for number in range(3):
                group = machine.slots[4 * number : 4 * number + 4]
                cpus = [each.cpu for each in group if each.cpu is not None]
                target = machine.get(f"socket[{number}]")
                assert (target != "") == bool(cpus)
                if target.startswith("/objects/"):
                    assert {cpu.path.rpartition("/")[0] for cpu in cpus} == {target}
            for name, socket in sockets.items():
                place = socket.get("socket-id")
                assert (place >= 0) == socket.get("realized") == bool(list(socket.children()))
                assert place < 0 or machine.get(f"socket[{place}]") == f"/objects/{name}"
