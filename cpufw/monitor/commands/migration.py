"""Commands about migration, which QMP does not drive: see `cpufw run --migrate`."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from cpufw.monitor.command import command
from cpufw.monitor.errors import QmpError
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.schema import ValueFeatures

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


class MigrationInfo(TypedDict):
    pass


@command("query-migrate")
def query_migrate(monitor: Monitor) -> MigrationInfo:
    """Empty: QMP starts no migration."""
    return {}
