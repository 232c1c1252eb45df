"""A migration that a client of the monitor began."""

from __future__ import annotations

import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from cpufw.errors import CpufwError, StateError
from cpufw.monitor.errors import QmpError
from cpufw.snapshot.channel import Address
from cpufw.snapshot.migration import Migration, MigrationReport, Progress

if TYPE_CHECKING:
    from cpufw.monitor.monitor import Monitor

_UNDER_WAY = ("setup", "active", "cancelling")


class OutgoingMigration:
    """Moves the guest of `monitor` to `uri`, on a thread of its own, and tells how it goes.

    `status` is QMP's (its type `MigrationStatus`), `error` why it failed, `report` what it took.
    Raises `QmpError` or `CpufwError` for what cannot be begun.
    """

    def __init__(self, monitor: Monitor, uri: str) -> None:
        state = monitor.machine.status
        if state == "postmigrate":
            raise QmpError("Can't migrate the vm that was paused due to previous migration")
        if state not in ("running", "paused"):
            raise QmpError(f"The guest cannot be moved: it is {state}, not running or paused")
        self._monitor = monitor
        self._migration = Migration(monitor.machine, Address.parse(uri))
        self._begin, self._end = monotonic(), 0.0
        self.status, self.error = "", ""
        self.report: MigrationReport | None = None
        self._cancelled = False
        self._tell("setup")
        self._thread = threading.Thread(target=self._run, name="migration", daemon=True)
        self._thread.start()

    @property
    def is_under_way(self) -> bool:
        """Whether it has not ended."""
        return self.status in _UNDER_WAY

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._migration.progress

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return (self._end or monotonic()) - self._begin

    def cancel(self) -> None:
        """End it, if it is under way. Raises `StateError` if it is too late."""
        if not self.is_under_way:
            return
        self._cancelled = True
        try:
            self._migration.cancel()
        except StateError:
            self._cancelled = False
            raise

    def close(self) -> None:
        """End it, and wait for that."""
        with suppress(StateError):  # the other side has the guest: let both agree about it
            self.cancel()
        self._thread.join()

    def _run(self) -> None:
        self._tell("active")
        try:
            self.report = self._migration.run()
            status = "completed"
        except CpufwError as error:
            status = "cancelled" if self._cancelled else "failed"
            self.error = "" if self._cancelled else str(error)
        except Exception as error:  # a defect of ours must not look like a migration without end
            status, self.error = "failed", f"cpufw failed: {type(error).__name__}: {error}"
        self._end = monotonic()
        self._tell(status)

    def _tell(self, status: str) -> None:
        self.status = status
        if "events" in self._monitor.migration_capabilities:
            self._monitor.emit("MIGRATION", {"status": status})
