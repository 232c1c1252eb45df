"""Machines: slots, plug and unplug, and undo at every step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.core.board import BareBoard
from cpufw.core.hotplug import HotplugEventKind as Kind
from cpufw.core.hotplug import Slot, SlotState
from cpufw.core.machine import Machine
from cpufw.errors import CpufwError, HotplugError, NotFoundError, PropertyError

from .lab import GuestBoard, LabAccelerator, LabCPU, lab_machine, plug, snapshot, tree


@pytest.fixture
def machine() -> Any:
    with lab_machine("1,maxcpus=8,sockets=2,cores=2,threads=2") as machine:
        yield machine


def guest(machine: Machine) -> GuestBoard:
    assert isinstance(machine.board, GuestBoard)
    return machine.board


def kinds(machine: Machine, since: int = 0) -> list[Kind]:
    return [event.kind for event in machine.events(since, timeout=0)]


def unplug(machine: Machine, device: str) -> None:
    machine.device_del(device)
    machine.eject(next(slot for slot in machine.slots if slot.occupant[1] == device))


# --- the tree ----------------------------------------------------------------------------


def test_the_tree_has_every_place_and_every_cpu(machine: Machine) -> None:
    machine.device_add("one-lab-cpu", "cpu1", socket_id=1, core_id=0, thread_id=1)
    anonymous = machine.device_add("one-lab-cpu", socket_id=1, core_id=1, thread_id=1)
    paths = {path: kind for path, kind, _ in tree(machine)}
    assert paths["/machine"] == "lab-machine"
    assert paths["/machine/unattached/device[0]"] == "one-lab-cpu"
    assert paths["/machine/peripheral/cpu1"] == "one-lab-cpu"
    assert anonymous.path == "/machine/peripheral-anon/device[0]"
    threads = [path for path, kind in paths.items() if kind == "thread"]
    assert len(threads) == len(machine.slots) == 8
    assert "/machine/topology/socket[1]/core[0]/thread[1]" in threads


def test_a_device_number_is_not_given_again(machine: Machine) -> None:
    for number in range(3):
        cpu = machine.device_add("one-lab-cpu", socket_id=1, core_id=0, thread_id=1)
        assert cpu.path == f"/machine/peripheral-anon/device[{number}]"
        slot = cpu.slot
        assert slot is not None
        machine.request_unplug(slot)
        machine.eject(slot)


def test_each_place_links_to_its_cpu_while_it_is_there(machine: Machine) -> None:
    place = machine.resolve("topology/socket[1]/core[0]/thread[1]")
    assert place.get("cpu") == ""
    cpu = machine.device_add("one-lab-cpu", "cpu1", socket_id=1, core_id=0, thread_id=1)
    assert place.get("cpu") == cpu.path == "/machine/peripheral/cpu1"
    assert machine.resolve("/machine/topology/socket[1]/core[0]/thread[1]/cpu") is cpu
    unplug(machine, "cpu1")
    assert place.get("cpu") == ""
    assert cpu.path == "/"


def test_hotpluggable_cpus_names_every_place(machine: Machine) -> None:
    cpu = machine.device_add("one-lab-cpu", "a", socket_id=1, core_id=1, thread_id=1)
    shown = machine.hotpluggable_cpus()
    assert len(shown) == 8
    assert shown[0] == {
        "props": {"socket-id": 1, "core-id": 1, "thread-id": 1},
        "vcpus-count": 1,
        "type": "one-lab-cpu",
        "qom-path": cpu.path,
    }
    assert [entry for entry in shown if "qom-path" in entry] == [shown[0], shown[-1]]
    for entry in shown[1:-1]:  # each entry is a recipe for device_add
        machine.device_add(entry["type"], **entry["props"])
    assert len(machine.cpus()) == 8


# --- plug, unplug ------------------------------------------------------------------------


def test_the_life_of_a_hotplugged_cpu(machine: Machine) -> None:
    since = machine.log.seq
    cpu = plug(machine, "a")
    slot = cpu.slot
    assert slot is not None
    assert guest(machine).plugged == [(0, False), (slot.index, True)]
    machine.cpu_online(slot, "hello")
    machine.device_del("a")
    assert guest(machine).asked == [slot.index]
    machine.unplug_refused(slot, "busy")
    machine.device_del("a")
    machine.device_del("a")
    machine.eject(slot)
    assert kinds(machine, since) == [
        Kind.PLUGGING,
        Kind.PRESENT,
        Kind.ONLINE,
        Kind.UNPLUG_REQUESTED,
        Kind.UNPLUG_REFUSED,
        Kind.UNPLUG_REQUESTED,
        Kind.UNPLUG_REQUESTED,
        Kind.EJECTING,
        Kind.UNPLUGGED,
    ]
    assert all(event.device == "a" for event in machine.events(since, timeout=0))
    assert [event.detail for event in machine.events(since, timeout=0) if event.detail] == [
        "hello",
        "busy",
    ]
    assert (cpu.realized, cpu.slot, cpu.machine) == (False, None, None)


@given(st.lists(st.tuples(st.integers(1, 7), st.booleans()), max_size=12))
def test_plug_then_unplug_is_the_identity(steps: list[tuple[int, bool]]) -> None:
    """Whatever else is plugged: one more CPU, plugged and unplugged, leaves no trace."""
    with lab_machine("1,maxcpus=8,sockets=2,cores=2,threads=2") as machine:
        for index, named in steps:
            slot, device = machine.slots[index], f"cpu{index}" if named else ""
            if slot.state is SlotState.EMPTY:
                slot.occupant = ("", "")  # who was there last is memory, not state
                before = snapshot(machine)
                machine.device_add("one-lab-cpu", device, **slot.id.props())
                machine.request_unplug(slot)
                machine.eject(slot)
                slot.occupant = ("", "")
                assert snapshot(machine) == before
                machine.device_add("one-lab-cpu", device, **slot.id.props())


def test_a_cpu_of_no_board_leaves_at_once() -> None:
    with lab_machine(board=BareBoard) as machine:
        before = tree(machine)
        plug(machine, "a")
        machine.device_del("a")
        assert tree(machine) == before
        assert kinds(machine)[-3:] == [Kind.UNPLUG_REQUESTED, Kind.EJECTING, Kind.UNPLUGGED]


def test_a_device_id_can_be_used_again_after_the_unplug(machine: Machine) -> None:
    plug(machine, "a")
    unplug(machine, "a")
    assert plug(machine, "a").path == "/machine/peripheral/a"


# --- bad input ---------------------------------------------------------------------------

PLACE = {"socket_id": 0, "core_id": 1, "thread_id": 0}


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"driver": "onee-lab-cpu"}, NotFoundError, "did you mean one-lab-cpu"),
        ({"driver": "one-v1-lab-cpu"}, HotplugError, "this machine's CPUs are one-lab-cpu"),
        ({"driver": "two-lab-cpu"}, HotplugError, "two-lab-cpu cannot be plugged"),
        ({"driver": "one-x86_64-cpu"}, NotFoundError, "CPU type 'one-x86_64-cpu' is not known"),
        ({"id": "taken"}, HotplugError, "device id 'taken' is in use"),
        ({"id": "1st"}, HotplugError, "device id '1st' is not valid, expected a letter"),
        ({"id": "a/b"}, HotplugError, "device id 'a/b' is not valid"),
        ({"id": "a\n"}, HotplugError, "is not valid"),
        ({"core_id": 0}, HotplugError, "slot 0 .* is taken by /machine/unattached/device"),
        ({"socket_id": 1, "core_id": 1, "thread_id": 1}, HotplugError, "taken by taken"),
        ({"socket_id": 2}, HotplugError, "socket-id=2 is out of range, expected 0 to 1"),
        ({"core_id": -1}, HotplugError, "core-id is not set"),
        (
            {"thread_id": None},
            PropertyError,
            "thread-id=None is not valid, expected a whole number",
        ),
        ({"core_id": "one"}, PropertyError, "core-id=one is not valid, expected a whole number"),
        ({"core_id": 1.0}, PropertyError, "expected a whole number"),
        ({"core_id": True}, PropertyError, "expected a whole number"),
        ({"die_id": 0}, PropertyError, "'die_id' is not known"),
        ({"wied": "on"}, PropertyError, "did you mean wide"),
        ({"wide": "perhaps"}, PropertyError, "expected on or off"),
        ({"wider": True, "wide": False}, CpufwError, "wider requires wide"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_and_changes_nothing(
    machine: Machine, arguments: dict[str, Any], error: type[CpufwError], says: str
) -> None:
    machine.device_add("one-lab-cpu", "taken", socket_id=1, core_id=1, thread_id=1)
    before, since = snapshot(machine), machine.log.seq
    with pytest.raises(error, match=says) as caught:
        machine.device_add(**{"driver": "one-lab-cpu", "id": "new", **PLACE, **arguments})
    assert "\n" not in str(caught.value).replace("a\n", "")
    assert snapshot(machine) == before
    assert kinds(machine, since) == []
    machine.device_add("one-lab-cpu", "new", **PLACE)


@pytest.mark.parametrize("missing", sorted(PLACE))
def test_a_missing_id_is_asked_for(machine: Machine, missing: str) -> None:
    before = snapshot(machine)
    place = {name: value for name, value in PLACE.items() if name != missing}
    with pytest.raises(
        HotplugError, match=f"{missing.replace('_', '-')} is not set, expected 0 to"
    ):
        machine.device_add("one-lab-cpu", "new", **place)
    assert snapshot(machine) == before


@pytest.mark.parametrize("device", ["ghost", "", "peripheral"])
def test_unplugging_what_is_not_there_is_refused(machine: Machine, device: str) -> None:
    plug(machine, "ghots")
    before = snapshot(machine)
    with pytest.raises(NotFoundError, match=f"device id '{device}' is not known") as caught:
        machine.device_del(device)
    assert ("did you mean ghots" in str(caught.value)) == (device == "ghost")
    assert snapshot(machine) == before


def test_the_boot_cpu_cannot_be_unplugged(machine: Machine) -> None:
    before = snapshot(machine)
    for ask in (machine.request_unplug, machine.eject):
        with pytest.raises(HotplugError, match="boot CPU"):
            ask(machine.slots[0])
    assert snapshot(machine) == before


def test_an_empty_slot_cannot_be_unplugged(machine: Machine) -> None:
    before = snapshot(machine)
    for ask in (machine.request_unplug, machine.eject):
        with pytest.raises(HotplugError, match=r"slot 3 .* is empty"):
            ask(machine.slots[3])
    assert snapshot(machine) == before


def test_a_guest_that_speaks_out_of_turn_is_not_believed(machine: Machine) -> None:
    before, since = snapshot(machine), machine.log.seq
    machine.cpu_online(machine.slots[3], "I am here")
    machine.unplug_refused(machine.slots[3], "I stay")
    assert snapshot(machine) == before
    assert kinds(machine, since) == []


# --- undo --------------------------------------------------------------------------------


def veto_plugs(allowed: int) -> Callable[[Slot, Kind], str | None]:
    """A veto that lets the first `allowed` plugs pass."""
    seen: list[Slot] = []

    def veto(slot: Slot, kind: Kind) -> str | None:
        if kind is Kind.PLUGGING:
            seen.append(slot)
        return "no more CPUs" if len(seen) > allowed else None

    return veto


def break_step(step: str) -> Callable[[Machine, pytest.MonkeyPatch], None]:
    return lambda _machine, patch: patch.setattr(LabCPU, "broken_step", step)


def break_board(machine: Machine, _: pytest.MonkeyPatch) -> None:
    guest(machine).broken.add("cpu_plugged")


def break_grants(machine: Machine, _: pytest.MonkeyPatch) -> None:
    machine.cpu_properties["enforce"] = True
    assert isinstance(machine.accelerator, LabAccelerator)
    machine.accelerator.granted -= machine.accelerator.granted


def break_veto(machine: Machine, _: pytest.MonkeyPatch) -> None:
    machine.hotplug.vetoes.append(veto_plugs(0))


@pytest.mark.parametrize(
    ("sabotage", "says", "events"),
    [
        (break_veto, "no more CPUs", []),
        (break_step("synthesise"), "synthesise is broken", [Kind.PLUGGING, Kind.PLUG_FAILED]),
        (break_step("accelerate"), "accelerate is broken", [Kind.PLUGGING, Kind.PLUG_FAILED]),
        (break_grants, "does not grant base", [Kind.PLUGGING, Kind.PLUG_FAILED]),
        (break_board, "cpu_plugged is broken", [Kind.PLUGGING, Kind.PLUG_FAILED]),
    ],
)
@pytest.mark.parametrize("device", ["new", ""])
@pytest.mark.parametrize("used_before", [False, True])
def test_a_plug_that_fails_at_any_step_leaves_the_machine_as_it_was(
    sabotage: Callable[[Machine, pytest.MonkeyPatch], None],
    says: str,
    events: list[Kind],
    device: str,
    used_before: bool,
) -> None:
    with lab_machine(accelerator=LabAccelerator("base wide")) as machine:
        plug(machine, "other", core=2)
        if used_before:
            plug(machine, "former")
            unplug(machine, "former")
        before, since, parked = snapshot(machine), machine.log.seq, len(LabCPU.parked)
        with pytest.MonkeyPatch.context() as patch:
            sabotage(machine, patch)
            with pytest.raises((CpufwError, RuntimeError), match=says):
                plug(machine, device)
        assert snapshot(machine) == before
        assert kinds(machine, since) == events
        assert [event.device for event in machine.events(since, timeout=0)] == [device] * len(
            events
        )
        # A vCPU that was taken is given back, one that was not is not.
        accelerated = sabotage in (break_grants, break_board)
        assert LabCPU.parked[parked:] == ([101] if accelerated else [])
        # Nothing is in the way of the next one.
        machine.hotplug.vetoes.clear()
        guest(machine).broken.clear()
        machine.cpu_properties.clear()
        assert plug(machine, device).realized


def test_a_cpu_whose_realize_failed_can_be_repaired_and_tried_again() -> None:
    with lab_machine() as machine:
        cpu = machine.cpu_class("late", socket_id=0, core_id=9, thread_id=0)
        with pytest.raises(HotplugError, match="core-id=9 is out of range, expected 0 to 3"):
            cpu.realize(machine)
        assert (cpu.realized, cpu.machine, cpu.slot) == (False, None, None)
        cpu.set("core-id", 3)
        cpu.realize(machine, hotplugged=True)
        assert machine.slots[3].cpu is cpu


@pytest.mark.parametrize("earlier_request", [False, True])
def test_a_request_that_cannot_reach_the_guest_is_withdrawn(
    machine: Machine, earlier_request: bool
) -> None:
    slot = plug(machine, "a").slot
    assert slot is not None
    if earlier_request:
        machine.device_del("a")
    before = snapshot(machine)
    guest(machine).broken.add("cpu_unplug_request")
    with pytest.raises(RuntimeError, match="cpu_unplug_request is broken"):
        machine.device_del("a")
    assert snapshot(machine) == before
    guest(machine).broken.clear()
    machine.device_del("a")
    assert slot.state is SlotState.UNPLUG_REQUESTED


def test_a_request_can_be_withdrawn_until_the_guest_has_seen_it(machine: Machine) -> None:
    slot = plug(machine, "a").slot
    assert slot is not None
    with pytest.raises(HotplugError, match="'a' has not been asked to leave"):
        machine.withdraw_unplug("a")
    machine.device_del("a")
    machine.withdraw_unplug("a")
    assert kinds(machine)[-1] is Kind.UNPLUG_WITHDRAWN
    assert slot.state is SlotState.PRESENT
    machine.device_del("a")
    guest(machine).asked.clear()  # it has taken note
    with pytest.raises(HotplugError, match="the guest has seen the request to give up 'a'"):
        machine.withdraw_unplug("a")
    assert slot.state is SlotState.UNPLUG_REQUESTED
    with pytest.raises(NotFoundError):
        machine.withdraw_unplug("b")


def test_a_vetoed_unplug_does_not_reach_the_guest(machine: Machine) -> None:
    plug(machine, "a")
    machine.hotplug.vetoes.append(
        lambda _slot, kind: "it is pinned" if kind is Kind.UNPLUG_REQUESTED else None
    )
    before, since = snapshot(machine), machine.log.seq
    with pytest.raises(HotplugError, match="it is pinned"):
        machine.device_del("a")
    assert guest(machine).asked == []
    assert snapshot(machine) == before
    assert kinds(machine, since) == []


def test_boot_cpus_that_fail_leave_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    parked = len(LabCPU.parked)
    with pytest.raises(HotplugError, match="no more CPUs"):
        lab_machine("3", vetoes=[veto_plugs(2)])
    assert sorted(LabCPU.parked[parked:]) == [100, 101]
    monkeypatch.setattr(LabCPU, "broken_step", "accelerate")
    with pytest.raises(RuntimeError, match="accelerate is broken"):
        lab_machine("3")


# --- watching, closing -------------------------------------------------------------------


def test_a_listener_hears_every_event_until_it_leaves() -> None:
    from_the_start: list[Kind] = []
    with lab_machine(listeners=[lambda event: from_the_start.append(event.kind)]) as machine:
        heard: list[Kind] = []
        leave = machine.subscribe(lambda event: heard.append(event.kind))
        plug(machine, "a")
        leave()
        plug(machine, "b", core=2)
        assert heard == [Kind.PLUGGING, Kind.PRESENT]
        assert from_the_start == kinds(machine) == [Kind.PLUGGING, Kind.PRESENT] * 3


def test_an_observer_that_fails_does_not_undo_the_plug(machine: Machine) -> None:
    def broken(_cpu: object) -> None:
        raise ValueError("not my day")

    machine.on_realized = broken
    cpu = plug(machine, "a")
    assert cpu.realized
    assert machine.cpus()[-1] is cpu
    assert [str(error) for error in machine.hotplug.listener_errors] == ["not my day"]


def test_two_plugs_at_once_into_one_slot_give_one_cpu(machine: Machine) -> None:
    results: list[object] = []
    start = threading.Barrier(4)

    def race(name: str) -> None:
        start.wait()
        try:
            results.append(plug(machine, name))
        except HotplugError as error:
            results.append(error)

    threads = [threading.Thread(target=race, args=(f"cpu{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(result, LabCPU) for result in results) == 1
    assert len(machine.cpus()) == 2


def test_a_closed_machine_takes_no_cpus_and_ends_its_readers() -> None:
    machine = lab_machine()
    parked = len(LabCPU.parked)
    plug(machine, "a")
    machine.close()
    machine.close()
    assert sorted(LabCPU.parked[parked:]) == [100, 101]
    with pytest.raises(HotplugError, match="the machine is closed"):
        plug(machine, "b", core=2)
    assert [event.seq for event in machine.events()] == [1, 2, 3, 4]  # does not wait


def test_closing_gives_everything_back_even_if_a_part_fails() -> None:
    accelerator = LabAccelerator("base wide")
    machine = lab_machine("2", accelerator=accelerator)
    machine.owns_accelerator = True
    guest(machine).broken.add("stop")
    parked = len(LabCPU.parked)
    with pytest.raises(RuntimeError, match="stop is broken"):
        machine.close()
    assert sorted(LabCPU.parked[parked:]) == [100, 101]
    assert accelerator.closed
