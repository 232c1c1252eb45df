"""Snapshots: a machine in a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cpufw.errors import StateError
from cpufw.snapshot.description import MachineDescription, describe
from cpufw.snapshot.file import replaced
from cpufw.snapshot.machine import (
    Loading,
    MakeMachine,
    read_description,
    remade,
    write_description,
    write_memory,
    write_sections,
)
from cpufw.snapshot.saved import state_of
from cpufw.snapshot.stream import StreamReader, StreamWriter

if TYPE_CHECKING:
    from cpufw.core.machine import Machine


def save(machine: Machine, path: Path, *, compress: bool = False) -> int:
    """Save a machine; the guest is held meanwhile. Returns the size of the file.

    Raises `StateError`; a file that was at `path` is then still there in full.
    """
    board = state_of(machine)
    with replaced(path) as write:
        writer = StreamWriter(write, compress=compress)
        with board.held(), machine.hotplug.lock:
            write_description(writer, describe(machine, board))
            write_memory(writer, board)
            write_sections(writer, machine, board)
        writer.end()
    return writer.bytes


@contextmanager
def _opened(path: Path) -> Iterator[StreamReader]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise StateError(f"snapshot {path} cannot be read: {error.strerror}") from None
    with file:
        try:
            yield StreamReader(file.read, f"snapshot {path}")
        except OSError as error:
            raise StateError(f"snapshot {path} cannot be read: {error.strerror}") from None


def load(path: Path, make: MakeMachine) -> Machine:
    """The machine that was saved, ready to start. Raises `StateError`, nothing stays open then."""
    with _opened(path) as reader:
        description = read_description(reader)
        with remade(description, make) as machine:
            loading = Loading(machine, state_of(machine), reader.source)
            for record in reader:
                loading.take(record)
            reader.check_nothing_follows()
            loading.finish()
            return machine


def check(path: Path) -> tuple[MachineDescription, dict[str, int]]:
    """What a file describes, and how many bytes each kind of record in it has.

    Reads all of it. Raises `StateError` for a file that is damaged.
    """
    sizes: dict[str, int] = {}
    with _opened(path) as reader:
        description = read_description(reader)
        for record in reader:
            kind = record.name.partition("/")[0]
            sizes[kind] = sizes.get(kind, 0) + len(record.content)
        reader.check_nothing_follows()
    return description, sizes
