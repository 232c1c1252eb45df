"""The source of a live migration: memory while the guest runs, then the rest while it is held."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING

from cpufw.errors import MigrationInDoubtError, StateError
from cpufw.snapshot import pages
from cpufw.snapshot.channel import TIMEOUT, Address, Channel, connect
from cpufw.snapshot.description import describe
from cpufw.snapshot.incoming import ALIVE, COMPLETE, GO, LOADED, READY, REFUSED, RUNNING, expect
from cpufw.snapshot.machine import PAGES_RECORD, write_description, write_sections
from cpufw.snapshot.saved import Block, state_of
from cpufw.snapshot.stream import Kind, StreamReader, StreamWriter

if TYPE_CHECKING:
    from cpufw.core.machine import Machine

_STATE_SECONDS = 0.01
"""What the state besides memory takes, for the estimate of the downtime."""
_ALIVE_SECONDS = 1.0
"""How often to show that this side is there while it has nothing to send."""
_LAST_WORDS = 1.0
"""How long to wait for why the other side hung up, in seconds."""


@dataclass(frozen=True)
class Limits:
    """How a migration goes about it.

    `bandwidth` is the most bytes a second to send while the guest runs, 0 for no limit;
    `downtime` the longest that the guest may stand still, in seconds; `rounds` how often to send
    what was written meanwhile before giving up; `timeout` the seconds without progress after
    which the other side counts as gone.
    """

    bandwidth: int = 0
    downtime: float = 0.3
    rounds: int = 30
    timeout: float = TIMEOUT


@dataclass(frozen=True)
class MigrationReport:
    """What a migration took: seconds in all, seconds of standstill, rounds, bytes."""

    seconds: float
    downtime: float
    rounds: int
    bytes: int


@dataclass
class Progress:
    """How far a migration is: bytes sent, and bytes of memory still to go and in all.

    `rounds` began so far; `pages` went with their content, `zeros` without as they hold nothing.
    """

    transferred: int = 0
    remaining: int = 0
    total: int = 0
    rounds: int = 0
    pages: int = 0
    zeros: int = 0


class Migration:
    """Moves the guest of `machine` to who receives at `address`.

    `run` does it; `cancel`, from another thread, ends it; `progress` may be looked at. Whatever
    fails before the destination has everything and has said so, the guest goes on here.
    """

    def __init__(self, machine: Machine, address: Address, limits: Limits | None = None) -> None:
        self._machine, self._board = machine, state_of(machine)
        self._address, self._limits = address, limits or Limits()
        self._lock = threading.Lock()
        self._channel: Channel | None = None
        self._cancelled = self._handed_over = False
        total = sum(block.size for block in self._board.blocks())
        self.progress = Progress(remaining=total, total=total)

    def cancel(self) -> None:
        """End the migration; the guest goes on here.

        Raises `StateError` if it is too late: the destination was told to run the guest.
        """
        with self._lock:
            if self._handed_over:
                raise StateError("it is too late to cancel: the guest has been handed over")
            self._cancelled = True
            if self._channel is not None:
                self._channel.abort()

    def run(self) -> MigrationReport:
        """Migrate. Raises `StateError`, with the guest running on here.

        Raises `MigrationInDoubtError`, with the guest paused here, if the destination was told to
        run it and did not answer: never will both run it.
        """
        begin = monotonic()
        with connect(self._address, self._limits.timeout) as channel:
            with self._lock:
                self._channel = channel
            try:
                return self._migrate(channel, begin)
            except StateError:
                if self._cancelled:
                    raise StateError("the migration was cancelled, the guest goes on") from None
                raise

    def _migrate(self, channel: Channel, begin: float) -> MigrationReport:
        self._check()
        writer = StreamWriter(channel.write)
        with self._machine.hotplug.lock:
            description = describe(self._machine, self._board)
        write_description(writer, description)
        reader = StreamReader(channel.read, str(self._address))
        expect(reader, READY)
        self._board.log_dirty_pages(True)
        try:
            rounds, left = self._send_running(channel, reader, writer)
            downtime = self._send_held(channel, reader, writer, left)
        finally:
            self._board.log_dirty_pages(False)
        return MigrationReport(monotonic() - begin, downtime, rounds, writer.bytes)

    def _check(self) -> None:
        if self._cancelled:
            raise StateError("the migration was cancelled")

    # --- while the guest runs -------------------------------------------------------------

    def _send_running(
        self, channel: Channel, reader: StreamReader, writer: StreamWriter
    ) -> tuple[int, dict[Block, bytes]]:
        """Send memory until the rest of it can go within the downtime: rounds, and that rest."""
        blocks = self._board.blocks()
        limit = max(self._limits.downtime - _STATE_SECONDS, 0.0)
        dirty: dict[Block, bytes] | None = None
        for rounds in range(1, self._limits.rounds + 1):
            begin, before = monotonic(), writer.bytes
            self.progress.rounds = rounds
            self._send(channel, reader, writer, blocks, dirty, self._limits.bandwidth)
            seconds = max(monotonic() - begin, 1e-6)
            rate = max(writer.bytes - before, pages.PAGE) / seconds
            if self._limits.bandwidth:
                rate = min(rate, self._limits.bandwidth)
            dirty = {block: self._board.dirty_pages(block) for block in blocks}
            left = sum(map(pages.bit_count, dirty.values())) * pages.PAGE
            if left / rate <= limit:
                return rounds, dirty
        raise StateError(
            f"the guest cannot be moved within {self._limits.downtime:g} s of standstill: in the "
            f"last of {rounds} rounds it wrote {left / seconds / 1e6:.1f} MB/s while "
            f"{rate / 1e6:.1f} MB/s went over; allow more downtime or bandwidth"
        )

    def _send(
        self,
        channel: Channel,
        reader: StreamReader,
        writer: StreamWriter,
        blocks: list[Block],
        wanted: dict[Block, bytes] | None,
        bandwidth: int,
    ) -> None:
        begin, before = monotonic(), writer.bytes
        told, progress = begin, self.progress
        progress.remaining = (
            sum(map(pages.bit_count, wanted.values())) * pages.PAGE if wanted else progress.total
        )
        try:
            for block in blocks:
                for chunk in self._board.pages(block, wanted[block] if wanted else None):
                    self._check()
                    sent, filled = pages.bit_count(chunk.sent), pages.bit_count(chunk.filled)
                    if chunk.data or wanted:
                        writer.record(Kind.PAGES, PAGES_RECORD, pages.encode(chunk))
                        told = monotonic()
                    elif monotonic() - told > _ALIVE_SECONDS:  # looking at much that is empty
                        writer.record(Kind.SIGNAL, ALIVE, b"")
                        told = monotonic()
                    progress.transferred = writer.bytes
                    progress.remaining -= sent * pages.PAGE
                    progress.pages += filled
                    progress.zeros += sent - filled
                    if bandwidth:
                        due = begin + (writer.bytes - before) / bandwidth
                        sleep(max(due - monotonic(), 0))
        except StateError:
            _raise_last_words(channel, reader)
            raise

    # --- while it stands still ------------------------------------------------------------

    def _send_held(
        self,
        channel: Channel,
        reader: StreamReader,
        writer: StreamWriter,
        left: dict[Block, bytes],
    ) -> float:
        """Send the rest, and hand the guest over; how long it stood still."""
        board, machine = self._board, self._machine
        begin = monotonic()
        with ExitStack() as held:
            held.enter_context(board.held())
            held.enter_context(machine.hotplug.lock)
            rest = {}
            for block, before in left.items():
                now = int.from_bytes(board.dirty_pages(block), "little")
                both = now | int.from_bytes(before, "little")
                rest[block] = both.to_bytes(len(before), "little")
            self._send(channel, reader, writer, list(rest), rest, bandwidth=0)
            write_description(writer, describe(machine, board))
            write_sections(writer, machine, board)
            writer.record(Kind.SIGNAL, COMPLETE, b"")
            expect(reader, LOADED)
            with self._lock:
                self._check()
                # If this fails the record is not there in full, and the destination gives up.
                writer.record(Kind.SIGNAL, GO, b"")
                self._handed_over = True
            try:
                expect(reader, RUNNING)
            except StateError as error:
                board.stay_paused()
                raise MigrationInDoubtError(
                    f"{self._address} has all of the guest and was told to run it, but did not say "
                    f"that it does ({error}); here it is paused: look there, and resume it here "
                    "only if it does not run there"
                ) from None
            downtime = monotonic() - begin
            board.handed_over(f"the guest runs on at {self._address}")
        return downtime


def _raise_last_words(channel: Channel, reader: StreamReader) -> None:
    """Raise what the other side said before it hung up, if it did."""
    channel.wait_for_data(_LAST_WORDS)
    try:
        record = reader.next()
    except StateError:
        return
    if record.kind is Kind.SIGNAL and record.name == REFUSED:
        raise StateError(f"{reader.source} refused: {record.content.decode(errors='replace')}")
