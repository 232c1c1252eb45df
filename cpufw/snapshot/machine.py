"""A machine into a stream, and out of it into a new machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cpufw.core.hotplug import Slot, SlotState
from cpufw.core.vmstate import State, VMState, nested_list
from cpufw.errors import StateError
from cpufw.snapshot import encoding, pages
from cpufw.snapshot.description import (
    RECORD,
    MachineDescription,
    PluggedCpu,
    check_same_cpu,
    plugged_cpu,
    unasked_features,
)
from cpufw.snapshot.stream import Kind, Record, StreamReader, StreamWriter

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUState
    from cpufw.core.machine import Machine
    from cpufw.snapshot.saved import SavableBoard

PAGES_RECORD = "memory"
_SLOTS = VMState("slots", 1, nested_list("slots", Slot.vmstate))

MakeMachine = Callable[[MachineDescription, Sequence[str]], "Machine"]
"""Makes a machine of this description, without the features named, that has not begun."""


def write_description(writer: StreamWriter, description: MachineDescription) -> None:
    """The first record of a stream."""
    writer.record(Kind.STATE, RECORD, encoding.encode(description.encode()))


def read_description(reader: StreamReader) -> MachineDescription:
    """What the first record describes. Raises `StateError`."""
    record = reader.next()
    if record.kind is not Kind.STATE or record.name != RECORD:
        raise StateError(f"{reader.source} does not begin with the description of a machine")
    return MachineDescription.decode(encoding.decode(record.content, reader.source), reader.source)


def write_sections(writer: StreamWriter, machine: Machine, board: SavableBoard) -> None:
    """All state but memory; the CPUs are held."""
    writer.record(Kind.STATE, "slots", encoding.encode(_SLOTS.save(machine)))
    for name, state in board.sections():
        writer.record(Kind.STATE, name, encoding.encode(state))


def write_memory(writer: StreamWriter, board: SavableBoard) -> None:
    """All memory but pages of zeros."""
    for block in board.blocks():
        for chunk in board.pages(block):
            if chunk.data:
                writer.record(Kind.PAGES, PAGES_RECORD, pages.encode(chunk))


class Loading:
    """A machine that is being loaded: `take` each record after the description, then `finish`.

    A later description tells which CPUs are plugged by then.
    """

    def __init__(self, machine: Machine, board: SavableBoard, source: str) -> None:
        self._machine, self._board, self._source = machine, board, source
        self._sections: dict[str, State] = {}

    def take(self, record: Record) -> None:
        """Put pages where they belong and keep the rest. Raises `StateError`."""
        where = f"{self._source}: {record.name}"
        match record.kind:
            case Kind.PAGES:
                self._board.load_pages(pages.decode(record.content, where))
            case Kind.STATE if record.name == RECORD:
                state = encoding.decode(record.content, where)
                plug_as(self._machine, MachineDescription.decode(state, self._source))
            case Kind.STATE:
                if record.name in self._sections:
                    raise StateError(f"{where} is there twice")
                self._sections[record.name] = encoding.decode(record.content, where)
            case _:
                raise StateError(f"{where} is not expected here")

    def finish(self) -> None:
        """Give the machine all the state. Raises `StateError`."""
        slots = self._sections.pop("slots", None)
        if slots is None:
            raise StateError(f"{self._source} lacks the states of the CPU slots")
        self._board.load(self._sections)
        before = [slot.state is SlotState.EMPTY for slot in self._machine.slots]
        _SLOTS.load(self._machine, slots)
        if before != [slot.state is SlotState.EMPTY for slot in self._machine.slots]:
            raise StateError(f"{self._source}: its CPUs are not in the slots that it says")


@contextmanager
def remade(description: MachineDescription, make: MakeMachine) -> Iterator[Machine]:
    """A machine of this description with the same CPUs plugged; closed if the block fails.

    Raises `StateError` if this host cannot give it the same CPU, naming the features.
    """
    machine = make(description, ())
    try:
        check_same_cpu(description, machine)
        more = tuple(unasked_features(description, machine))
        if more:  # the guest must not see features come
            machine.close()
            machine = make(description, more)
            check_same_cpu(description, machine)
        plug_as(machine, description)
        yield machine
    except BaseException:
        machine.close()
        raise


def plug_as(machine: Machine, description: MachineDescription) -> None:
    """Plug and unplug CPUs of a machine that has not begun until they are as described."""
    wanted = {each.slot: each for each in description.cpus}
    if not wanted.keys() <= {slot.index for slot in machine.slots} or 0 not in wanted:
        raise StateError("the saved machine has CPUs where its topology has no slots")
    common: CPUState = machine.cpu_class(**machine.cpu_properties)
    shared = common.settings()
    for slot in machine.slots:
        if slot.cpu is not None and wanted.get(slot.index) != plugged_cpu(slot, shared):
            machine.request_unplug(slot)  # before the guest runs that takes it away at once
    for cpu in wanted.values():
        if machine.slots[cpu.slot].cpu is None:
            _plug(machine, cpu)
    for slot in machine.slots:
        if slot.cpu is not None and slot.index not in wanted:
            machine.eject(slot)  # the rest of its socket or core is there


def _plug(machine: Machine, cpu: PluggedCpu) -> None:
    slot = machine.slots[cpu.slot]
    if cpu.socket:
        socket = machine.objects.child(cpu.socket)
        if socket is None:
            socket = machine.sockets.new(machine.sockets.type_name)
            machine.objects.add_child(cpu.socket, socket)
        machine.set(machine.sockets.link_of(slot), socket)
    elif machine.plug_unit_type:
        machine.device_add(machine.plug_unit_type, cpu.id, **machine.unit_ids(slot))
    else:
        properties = {**slot.id.props(), **cpu.properties}
        machine.device_add(machine.cpu_class.type_name, cpu.id, **properties)
