"""Commands about moving the guest to another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NotRequired, TypedDict

from cpufw.monitor.command import command
from cpufw.monitor.errors import QmpError
from cpufw.monitor.event_types import MigrationStatus
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.schema import Uint64, ValueFeatures

if TYPE_CHECKING:
    from cpufw.monitor.outgoing import OutgoingMigration

MigrationCapability = Annotated[
    Literal[
        "xbzrle", "rdma-pin-all", "auto-converge", "zero-blocks", "events", "postcopy-ram",
        "x-colo", "release-ram", "return-path", "pause-before-switchover", "multifd",
        "dirty-bitmaps", "postcopy-blocktime", "late-block-activate", "x-ignore-shared",
        "validate-uuid", "background-snapshot", "zero-copy-send", "postcopy-preempt",
        "switchover-ack", "dirty-limit", "mapped-ram",
    ],
    ValueFeatures(
        {
            "zero-blocks": ("deprecated",),
            "x-colo": ("unstable",),
            "x-ignore-shared": ("unstable",),
        }
    ),
]  # fmt: skip
_KNOWN = ("events",)


class MigrationCapabilityStatus(TypedDict):
    capability: MigrationCapability
    state: bool


@command("query-migrate-capabilities")
def query_migrate_capabilities(monitor: Monitor) -> list[MigrationCapabilityStatus]:
    """The capabilities that can be turned on, and whether they are."""
    on = monitor.migration_capabilities
    return [{"capability": name, "state": name in on} for name in _KNOWN]  # type: ignore[typeddict-item]


@command("migrate-set-capabilities")
def migrate_set_capabilities(
    monitor: Monitor, capabilities: list[MigrationCapabilityStatus]
) -> None:
    """Turn `events` on or off; the others can only be off."""
    for each in capabilities:
        if each["capability"] not in _KNOWN and each["state"]:
            raise QmpError(f"Capability {each['capability']} is not available")
    on = {each["capability"] for each in capabilities if each["state"]}
    off = {each["capability"] for each in capabilities if not each["state"]}
    monitor.migration_capabilities = frozenset((monitor.migration_capabilities | on) - off)


MigrationStats = TypedDict(
    "MigrationStats",
    {
        "transferred": int,
        "remaining": int,
        "total": int,
        "duplicate": int,
        "normal": int,
        "normal-bytes": int,
        "dirty-pages-rate": int,
        "mbps": float,
        "dirty-sync-count": int,
        "postcopy-requests": int,
        "page-size": int,
        "multifd-bytes": Uint64,
        "pages-per-second": Uint64,
        "precopy-bytes": Uint64,
        "downtime-bytes": Uint64,
        "postcopy-bytes": Uint64,
        "dirty-sync-missed-zero-copy": Uint64,
    },
)
MigrationInfo = TypedDict(
    "MigrationInfo",
    {
        "status": NotRequired[MigrationStatus],
        "ram": NotRequired[MigrationStats],
        "total-time": NotRequired[int],
        "downtime": NotRequired[int],
        "error-desc": NotRequired[str],
    },
)
_PAGE = 4096


@command("migrate")
def migrate(
    monitor: Monitor,
    uri: str | None = None,
    detach: bool | None = None,
    resume: bool | None = None,
) -> None:
    """Begin to move the guest to who receives it at `unix:PATH` or `tcp:HOST:PORT`.

    `query-migrate` tells how far it is.
    """
    from cpufw.monitor.outgoing import OutgoingMigration

    if resume:
        raise QmpError("Cannot resume if there is no paused migration")
    if uri is None:
        raise QmpError("need either 'uri' or 'channels' argument")
    if monitor.migration is not None and monitor.migration.is_under_way:
        raise QmpError("There's a migration process in progress")
    if uri.partition(":")[0] not in ("unix", "tcp"):
        raise QmpError(f"unknown migration protocol: {uri}")
    monitor.migration = OutgoingMigration(monitor, uri)


@command("migrate_cancel")
def migrate_cancel(monitor: Monitor) -> None:
    """End the migration that is under way, if one is; the guest goes on here."""
    if monitor.migration is not None:
        monitor.migration.cancel()


@command("query-migrate")
def query_migrate(monitor: Monitor) -> MigrationInfo:
    """How far the last migration is, and what came of it; empty before the first."""
    migration = monitor.migration
    if migration is None:
        return {}
    found: MigrationInfo = {"status": migration.status}  # type: ignore[typeddict-item]
    if migration.error:
        found["error-desc"] = migration.error
    if migration.status in ("active", "completed", "cancelling"):
        found["total-time"] = round(migration.seconds * 1000)
        found["ram"] = _ram(migration)
    if migration.report is not None:
        found["downtime"] = round(migration.report.downtime * 1000)
    return found


def _ram(migration: OutgoingMigration) -> MigrationStats:
    progress, seconds = migration.progress, max(migration.seconds, 1e-3)
    return {
        "transferred": progress.transferred,
        "remaining": max(progress.remaining, 0),
        "total": progress.total,
        "duplicate": progress.zeros,
        "normal": progress.pages,
        "normal-bytes": progress.pages * _PAGE,
        "dirty-pages-rate": 0,
        "mbps": progress.transferred * 8 / seconds / 1e6,
        "dirty-sync-count": progress.rounds,
        "postcopy-requests": 0,
        "page-size": _PAGE,
        "multifd-bytes": 0,
        "pages-per-second": int((progress.pages + progress.zeros) / seconds),
        "precopy-bytes": progress.transferred,
        "downtime-bytes": 0,
        "postcopy-bytes": 0,
        "dirty-sync-missed-zero-copy": 0,
    }
