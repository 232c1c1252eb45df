"""The hot-plug protocol: one state machine a slot, events, vetoes. Pure: no guest needed."""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from cpufw.core.vmstate import VMState, member
from cpufw.errors import HotplugError

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUState
    from cpufw.core.topology import SlotId


class SlotState(enum.Enum):
    """Where a slot stands between holding nothing and holding a CPU the guest uses."""

    EMPTY = "empty"
    PLUGGING = "plugging"
    PRESENT = "present"
    ONLINE = "online"
    UNPLUG_REQUESTED = "unplug-requested"
    EJECTING = "ejecting"


class HotplugEventKind(enum.Enum):
    """What happened at a slot."""

    PLUGGING = "plugging"
    PLUG_FAILED = "plug-failed"
    PRESENT = "present"
    ONLINE = "online"
    UNPLUG_REQUESTED = "unplug-requested"
    UNPLUG_REFUSED = "unplug-refused"
    UNPLUG_WITHDRAWN = "unplug-withdrawn"
    EJECTING = "ejecting"
    UNPLUGGED = "unplugged"
    GUEST_STATUS = "guest-status"


_LEGAL: dict[HotplugEventKind, tuple[frozenset[SlotState], SlotState | None]] = {
    # A target of None means: back to where the slot was before the unplug request.
    # GUEST_STATUS is not here: it reports the guest's words and moves nothing.
    HotplugEventKind.PLUGGING: (frozenset({SlotState.EMPTY}), SlotState.PLUGGING),
    HotplugEventKind.PLUG_FAILED: (frozenset({SlotState.PLUGGING}), SlotState.EMPTY),
    HotplugEventKind.PRESENT: (frozenset({SlotState.PLUGGING}), SlotState.PRESENT),
    HotplugEventKind.ONLINE: (frozenset({SlotState.PRESENT}), SlotState.ONLINE),
    HotplugEventKind.UNPLUG_REQUESTED: (
        frozenset({SlotState.PRESENT, SlotState.ONLINE, SlotState.UNPLUG_REQUESTED}),
        SlotState.UNPLUG_REQUESTED,
    ),
    HotplugEventKind.UNPLUG_REFUSED: (frozenset({SlotState.UNPLUG_REQUESTED}), None),
    HotplugEventKind.UNPLUG_WITHDRAWN: (frozenset({SlotState.UNPLUG_REQUESTED}), None),
    # A guest may also eject a CPU on its own account.
    HotplugEventKind.EJECTING: (
        frozenset({SlotState.PRESENT, SlotState.ONLINE, SlotState.UNPLUG_REQUESTED}),
        SlotState.EJECTING,
    ),
    HotplugEventKind.UNPLUGGED: (frozenset({SlotState.EJECTING}), SlotState.EMPTY),
}


@dataclass(eq=False)
class Slot:
    """One place for a CPU, known from the machine's start.

    `arch_id` is the architecture's name for the place (the APIC id on x86); `occupant` is path
    and device id of the CPU that is, or last was, in it.
    """

    index: int
    id: SlotId
    arch_id: int
    state: SlotState = SlotState.EMPTY
    cpu: CPUState | None = None
    occupant: tuple[str, str] = ("", "")
    plugged: int = 0
    """The number of the event that its CPU came with: what orders CPUs by their coming."""
    vmstate: ClassVar[VMState] = VMState(
        "slot",
        1,
        member(SlotState, "state"),
        member(SlotState, "before_request", attr="_before_request"),
    )
    _last_occupant: tuple[str, str] = field(default=("", ""), repr=False)
    _before_request: SlotState = field(default=SlotState.PRESENT, repr=False)


@dataclass(frozen=True, slots=True)
class HotplugEvent:
    """One transition of one slot.

    `seq` rises by one with every event of the machine; `time` is `time.monotonic()` seconds;
    `cpu` is the CPU's canonical path; `detail` is the guest's or the error's own words.
    """

    seq: int
    time: float
    kind: HotplugEventKind
    slot: int
    slot_id: SlotId
    state: SlotState
    cpu: str
    device: str
    detail: str = ""


Veto = Callable[["Slot", HotplugEventKind], str | None]


class EventLog:
    """The machine's events: the last `size` are kept, readers wait for new ones."""

    def __init__(self, size: int = 1024) -> None:
        self._events: deque[HotplugEvent] = deque(maxlen=size)
        self._changed = threading.Condition()
        self._closed = False
        self._seq = 0

    @property
    def seq(self) -> int:
        """The number of the newest event; 0 before the first."""
        return self._seq

    def append(self, make: Callable[[int], HotplugEvent]) -> HotplugEvent:
        """Number and keep the event that `make` builds from its sequence number."""
        with self._changed:
            self._seq += 1
            event = make(self._seq)
            self._events.append(event)
            self._changed.notify_all()
            return event

    def close(self) -> None:
        """End every iterator once it has seen what is there."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def since(self, seq: int = 0, timeout: float | None = None) -> Iterator[HotplugEvent]:
        """Every kept event after number `seq`, then new ones as they come.

        Ends when the machine closes, or when nothing new comes for `timeout` seconds.
        """
        while fresh := self._fresh(seq, timeout):
            yield from fresh
            seq = fresh[-1].seq

    def _fresh(self, seq: int, timeout: float | None) -> list[HotplugEvent]:
        with self._changed:
            self._changed.wait_for(lambda: self._seq > seq or self._closed, timeout)
            return [event for event in self._events if event.seq > seq]


class Hotplug:
    """Moves slots through their states; every legal step is an event, an illegal one raises.

    `vetoes` are asked in order before a plug (`PLUGGING`) and before an unplug request; the first
    that returns a reason stops it. `listeners` are called with each event while `lock` is held;
    what they raise is kept in `listener_errors`.
    """

    def __init__(self, log: EventLog, vetoes: list[Veto]) -> None:
        self.log, self.vetoes = log, vetoes
        self.listeners: list[Callable[[HotplugEvent], None]] = []
        self.listener_errors: deque[Exception] = deque(maxlen=16)
        self.lock = threading.RLock()

    def advance(self, slot: Slot, kind: HotplugEventKind, detail: str = "") -> HotplugEvent:
        """Take `slot` along the transition `kind`.

        Raises `HotplugError`, changing nothing, when its state does not allow that or a veto
        stops it.
        """
        with self.lock:
            sources, target = _LEGAL[kind]
            if slot.state not in sources:
                raise HotplugError(
                    f"slot {slot.index} ({slot.id}) is {slot.state.value}: "
                    f"it cannot become {kind.value}"
                )
            unplugs = (HotplugEventKind.UNPLUG_REQUESTED, HotplugEventKind.EJECTING)
            if kind in unplugs and slot.index == 0:
                raise HotplugError("the boot CPU (slot 0) cannot be unplugged", "boot-cpu")
            if kind in (HotplugEventKind.PLUGGING, HotplugEventKind.UNPLUG_REQUESTED):
                for veto in self.vetoes:
                    reason = veto(slot, kind)
                    if reason:
                        raise HotplugError(f"slot {slot.index} ({slot.id}): {reason}")
            if kind is HotplugEventKind.UNPLUG_REQUESTED:
                if slot.state is not SlotState.UNPLUG_REQUESTED:
                    slot._before_request = slot.state
            elif kind is HotplugEventKind.UNPLUG_REFUSED:
                # An answer proves that the guest runs this CPU, acknowledged or not.
                slot._before_request = SlotState.ONLINE
            slot.state = target or slot._before_request
            if kind is HotplugEventKind.PRESENT:
                slot.plugged = self.log.seq
            return self._emit(slot, kind, detail)

    def report(self, slot: Slot, detail: str) -> HotplugEvent:
        """Pass on what the guest said about `slot` where that moves nothing."""
        with self.lock:
            return self._emit(slot, HotplugEventKind.GUEST_STATUS, detail)

    def _emit(self, slot: Slot, kind: HotplugEventKind, detail: str) -> HotplugEvent:
        event = self.log.append(
            lambda seq: HotplugEvent(
                seq, monotonic(), kind, slot.index, slot.id, slot.state, *slot.occupant, detail
            )
        )
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except Exception as error:  # an observer must not stop the machine half way
                self.listener_errors.append(error)
        return event
