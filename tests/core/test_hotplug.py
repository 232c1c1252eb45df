"""The hot-plug protocol under every order of operations."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cpufw.core.hotplug import (
    EventLog,
    Hotplug,
    HotplugEvent,
    Slot,
    SlotState,
)
from cpufw.core.hotplug import (
    HotplugEventKind as Kind,
)
from cpufw.core.topology import parse_smp
from cpufw.errors import HotplugError

from .lab import LEVELS

# The protocol as the design tells it, written once more from the CPU's point of view.
ALLOWED: dict[SlotState, dict[Kind, SlotState | None]] = {
    SlotState.EMPTY: {Kind.PLUGGING: SlotState.PLUGGING},
    SlotState.PLUGGING: {Kind.PLUG_FAILED: SlotState.EMPTY, Kind.PRESENT: SlotState.PRESENT},
    SlotState.PRESENT: {
        Kind.ONLINE: SlotState.ONLINE,
        Kind.UNPLUG_REQUESTED: SlotState.UNPLUG_REQUESTED,
        Kind.EJECTING: SlotState.EJECTING,
    },
    SlotState.ONLINE: {
        Kind.UNPLUG_REQUESTED: SlotState.UNPLUG_REQUESTED,
        Kind.EJECTING: SlotState.EJECTING,
    },
    SlotState.UNPLUG_REQUESTED: {
        Kind.UNPLUG_REQUESTED: SlotState.UNPLUG_REQUESTED,
        Kind.UNPLUG_REFUSED: SlotState.ONLINE,
        Kind.UNPLUG_WITHDRAWN: None,  # back to where it was
        Kind.EJECTING: SlotState.EJECTING,
    },
    SlotState.EJECTING: {Kind.UNPLUGGED: SlotState.EMPTY},
}
TRANSITIONS = [kind for kind in Kind if kind is not Kind.GUEST_STATUS]
PATHS = {
    SlotState.EMPTY: [],
    SlotState.PLUGGING: [Kind.PLUGGING],
    SlotState.PRESENT: [Kind.PLUGGING, Kind.PRESENT],
    SlotState.ONLINE: [Kind.PLUGGING, Kind.PRESENT, Kind.ONLINE],
    SlotState.UNPLUG_REQUESTED: [Kind.PLUGGING, Kind.PRESENT, Kind.UNPLUG_REQUESTED],
    SlotState.EJECTING: [Kind.PLUGGING, Kind.PRESENT, Kind.EJECTING],
}


def slots(count: int) -> list[Slot]:
    topology = parse_smp(str(count), LEVELS, 64)
    return [Slot(index, slot_id, index) for index, slot_id in enumerate(topology.slots())]


def protocol(*vetoes: Callable[[Slot, Kind], str | None]) -> Hotplug:
    return Hotplug(EventLog(), list(vetoes))


def slot_in(state: SlotState, hotplug: Hotplug, index: int = 1) -> Slot:
    slot = slots(index + 1)[index]
    for kind in PATHS[state]:
        hotplug.advance(slot, kind)
    assert slot.state is state
    return slot


def events(hotplug: Hotplug) -> list[HotplugEvent]:
    return list(hotplug.log.since(0, timeout=0))


@pytest.mark.parametrize("state", SlotState)
@pytest.mark.parametrize("kind", TRANSITIONS)
def test_every_transition_is_as_designed_or_changes_nothing(state: SlotState, kind: Kind) -> None:
    hotplug = protocol()
    slot = slot_in(state, hotplug)
    before = events(hotplug)
    if kind in ALLOWED[state]:
        event = hotplug.advance(slot, kind, "a detail")
        target = ALLOWED[state][kind] or SlotState.PRESENT
        assert (slot.state, event.state, event.kind, event.detail) == (
            target,
            target,
            kind,
            "a detail",
        )
        assert events(hotplug) == [*before, event]
    else:
        with pytest.raises(HotplugError, match=f"is {state.value}: it cannot become {kind.value}"):
            hotplug.advance(slot, kind)
        assert slot.state is state
        assert events(hotplug) == before


@pytest.mark.parametrize("state", [SlotState.PRESENT, SlotState.ONLINE])
def test_a_withdrawn_request_leaves_the_slot_where_it_was(state: SlotState) -> None:
    hotplug = protocol()
    slot = slot_in(state, hotplug)
    hotplug.advance(slot, Kind.UNPLUG_REQUESTED)
    hotplug.advance(slot, Kind.UNPLUG_REQUESTED)  # asked again
    hotplug.advance(slot, Kind.UNPLUG_WITHDRAWN)
    assert slot.state is state


@pytest.mark.parametrize("kind", [Kind.UNPLUG_REQUESTED, Kind.EJECTING])
def test_the_boot_cpu_stays(kind: Kind) -> None:
    hotplug = protocol()
    boot = slot_in(SlotState.ONLINE, hotplug, index=0)
    before = events(hotplug)
    with pytest.raises(HotplugError, match="the boot CPU"):
        hotplug.advance(boot, kind)
    assert boot.state is SlotState.ONLINE
    assert events(hotplug) == before


@pytest.mark.parametrize(
    ("state", "kind"),
    [(SlotState.EMPTY, Kind.PLUGGING), (SlotState.ONLINE, Kind.UNPLUG_REQUESTED)],
)
def test_the_first_veto_stops_it_and_says_why(state: SlotState, kind: Kind) -> None:
    asked: list[str] = []

    def veto(name: str, reason: str | None) -> Callable[[Slot, Kind], str | None]:
        def answer(_slot: Slot, asked_kind: Kind) -> str | None:
            if asked_kind is not kind:
                return None
            asked.append(name)
            return reason

        return answer

    hotplug = protocol(veto("first", None), veto("second", "no licence"), veto("third", "never"))
    slot = slot_in(state, hotplug)
    before = events(hotplug)
    with pytest.raises(HotplugError, match=r"slot 1 \(.*\): no licence"):
        hotplug.advance(slot, kind)
    assert asked == ["first", "second"]
    assert slot.state is state
    assert events(hotplug) == before


def test_what_the_guest_says_moves_nothing() -> None:
    hotplug = protocol()
    slot = slot_in(SlotState.PRESENT, hotplug)
    event = hotplug.report(slot, "I am thinking")
    assert (event.kind, event.state, event.detail) == (
        Kind.GUEST_STATUS,
        SlotState.PRESENT,
        "I am thinking",
    )
    assert slot.state is SlotState.PRESENT


def test_a_broken_listener_stops_nobody() -> None:
    hotplug = protocol()
    seen: list[HotplugEvent] = []
    hotplug.listeners += [lambda _event: 1 / 0, seen.append]  # type: ignore[list-item]
    slot = slot_in(SlotState.PRESENT, hotplug)
    assert slot.state is SlotState.PRESENT
    assert [event.kind for event in seen] == [Kind.PLUGGING, Kind.PRESENT]
    assert [type(error) for error in hotplug.listener_errors] == [ZeroDivisionError] * 2


def test_a_reader_waits_for_events_and_ends_when_the_log_closes() -> None:
    hotplug = protocol()
    slot = slot_in(SlotState.PRESENT, hotplug)
    read: list[HotplugEvent] = []
    reader = threading.Thread(target=lambda: read.extend(hotplug.log.since(1)))
    reader.start()
    hotplug.advance(slot, Kind.ONLINE)
    hotplug.log.close()
    reader.join(10)
    assert not reader.is_alive()
    assert [event.kind for event in read] == [Kind.PRESENT, Kind.ONLINE]


def test_an_old_event_is_let_go_but_its_number_is_not_reused() -> None:
    log = EventLog(size=3)
    hotplug = Hotplug(log, [])
    slot = slot_in(SlotState.EMPTY, hotplug)
    for _ in range(5):
        hotplug.advance(slot, Kind.PLUGGING)
        hotplug.advance(slot, Kind.PLUG_FAILED)
    assert [event.seq for event in log.since(0, timeout=0)] == [8, 9, 10]
    assert log.seq == 10


class HotplugUnderAnyOrder(RuleBasedStateMachine):
    """Random operations on three slots against a plain model of the protocol."""

    @initialize()
    def start(self) -> None:
        self.forbid = False
        self.hotplug = protocol(lambda _slot, _kind: "forbidden" if self.forbid else None)
        self.slots = slots(3)
        self.expected = [SlotState.EMPTY] * 3
        self.before_request = [SlotState.PRESENT] * 3
        self.count = 0

    @rule(forbid=st.booleans())
    def decide(self, forbid: bool) -> None:
        self.forbid = forbid

    @rule(index=st.integers(0, 2), kind=st.sampled_from(TRANSITIONS))
    def anything(self, index: int, kind: Kind) -> None:
        self.advance(index, kind)

    @rule(index=st.integers(0, 2), choice=st.randoms(use_true_random=False))
    def a_legal_step(self, index: int, choice: object) -> None:
        legal = sorted(ALLOWED[self.expected[index]], key=lambda kind: kind.value)
        self.advance(index, choice.choice(legal))  # type: ignore[attr-defined]

    @precondition(lambda self: self.count)
    @rule(index=st.integers(0, 2))
    def guest_speaks(self, index: int) -> None:
        self.hotplug.report(self.slots[index], "word")
        self.count += 1

    def advance(self, index: int, kind: Kind) -> None:
        state = self.expected[index]
        asks = kind in (Kind.PLUGGING, Kind.UNPLUG_REQUESTED)
        boot = index == 0 and kind in (Kind.UNPLUG_REQUESTED, Kind.EJECTING)
        if kind not in ALLOWED[state] or boot or (asks and self.forbid):
            with pytest.raises(HotplugError):
                self.hotplug.advance(self.slots[index], kind)
            return
        if kind is Kind.UNPLUG_REQUESTED and state is not SlotState.UNPLUG_REQUESTED:
            self.before_request[index] = state
        self.hotplug.advance(self.slots[index], kind)
        self.expected[index] = ALLOWED[state][kind] or self.before_request[index]
        self.count += 1

    @invariant()
    def the_slots_are_where_the_model_is(self) -> None:
        if hasattr(self, "slots"):
            assert [slot.state for slot in self.slots] == self.expected

    @invariant()
    def numbers_rise_by_one_and_refusals_leave_no_trace(self) -> None:
        if hasattr(self, "slots"):
            seen = events(self.hotplug) if self.count else []
            assert [event.seq for event in seen] == list(range(1, self.count + 1))
            assert [event.time for event in seen] == sorted(event.time for event in seen)


HotplugUnderAnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestHotplugUnderAnyOrder = HotplugUnderAnyOrder.TestCase
