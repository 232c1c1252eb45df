"""The destination of a migration."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cpufw.errors import CpufwError, StateError
from cpufw.snapshot.channel import Channel
from cpufw.snapshot.machine import Loading, MakeMachine, read_description, remade
from cpufw.snapshot.saved import state_of
from cpufw.snapshot.stream import Kind, StreamReader, StreamWriter

if TYPE_CHECKING:
    from cpufw.core.machine import Machine

# What the two sides say to each other, in this order; see docs/snapshots.md.
READY, COMPLETE, LOADED, GO, RUNNING = "ready", "complete", "loaded", "go", "running"
REFUSED = "refused"
ALIVE = "alive"
"""Between the others, from a source that has nothing to send at the time."""


def receive(channel: Channel, make: MakeMachine) -> Machine:
    """The machine that comes through `channel`, running.

    Raises `StateError`, with nothing left open, if it does not come in full or cannot be had
    here; the guest then goes on where it was.
    """
    writer = StreamWriter(channel.write)
    try:
        return _receive(channel, writer, make)
    except CpufwError as error:
        with suppress(StateError):  # perhaps nobody is there to hear why
            writer.record(Kind.SIGNAL, REFUSED, str(error).encode())
        raise


def _receive(channel: Channel, writer: StreamWriter, make: MakeMachine) -> Machine:
    reader = StreamReader(channel.read, channel.peer)
    with remade(read_description(reader), make) as machine:
        writer.record(Kind.SIGNAL, READY, b"")
        loading = Loading(machine, state_of(machine), reader.source)
        while (record := reader.next())[:2] != (Kind.SIGNAL, COMPLETE):
            if record[:2] != (Kind.SIGNAL, ALIVE):
                loading.take(record)
        loading.finish()
        writer.record(Kind.SIGNAL, LOADED, b"")
        expect(reader, GO)
        machine.start()
        with suppress(StateError):  # the guest runs here, whether or not the source hears of it
            writer.record(Kind.SIGNAL, RUNNING, b"")
        return machine


def expect(reader: StreamReader, word: str) -> None:
    """Wait for `word` from the other side. Raises `StateError` with what it says instead."""
    record = reader.next()
    if record.kind is Kind.SIGNAL and record.name == REFUSED:
        raise StateError(f"{reader.source} refused: {record.content.decode(errors='replace')}")
    if record.kind is not Kind.SIGNAL or record.name != word:
        raise StateError(f"{reader.source} said '{record.name}' where '{word}' was expected")
