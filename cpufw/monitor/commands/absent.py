"""Commands about what cpufw's machines do not have, or do not tell of: they answer with nothing."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from cpufw.monitor.command import command
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.schema import Alternate, Uint64, Variants

IOThreadInfo = TypedDict(
    "IOThreadInfo",
    {
        "id": str,
        "thread-id": int,
        "poll-max-ns": int,
        "poll-grow": int,
        "poll-shrink": int,
        "aio-max-batch": int,
    },
)
JobType = Literal[
    "commit", "stream", "mirror", "backup", "create", "amend", "snapshot-load", "snapshot-save",
    "snapshot-delete",
]  # fmt: skip
JobStatus = Literal[
    "undefined", "created", "running", "paused", "ready", "standby", "waiting", "pending",
    "aborting", "concluded", "null",
]  # fmt: skip
JobInfo = TypedDict(
    "JobInfo",
    {
        "id": str,
        "type": JobType,
        "status": JobStatus,
        "current-progress": int,
        "total-progress": int,
        "error": NotRequired[str],
    },
)
TpmModel = Literal["tpm-tis", "tpm-crb", "tpm-spapr"]
StatsTarget = Literal["vm", "vcpu", "cryptodev"]
StatsProvider = Literal["kvm", "cryptodev"]


class StatsRequest(TypedDict):
    provider: StatsProvider
    names: NotRequired[list[str]]


class StatsFilterBase(TypedDict):
    target: StatsTarget
    providers: NotRequired[list[StatsRequest]]


class StatsVCPUFilter(TypedDict):
    vcpus: NotRequired[list[str]]


StatsFilter = Annotated[StatsFilterBase, Variants("target", {"vcpu": StatsVCPUFilter})]
StatsValue = Annotated[Uint64 | bool | list[Uint64], Alternate("StatsValue")]


class Stats(TypedDict):
    name: str
    value: StatsValue


StatsResult = TypedDict(
    "StatsResult",
    {"provider": StatsProvider, "qom-path": NotRequired[str], "stats": list[Stats]},
)


@command("query-iothreads")
def query_iothreads(monitor: Monitor) -> list[IOThreadInfo]:
    """None: devices have threads of their own."""
    return []


@command("query-jobs")
def query_jobs(monitor: Monitor) -> list[JobInfo]:
    """None: nothing runs in the background."""
    return []


@command("query-tpm-models")
def query_tpm_models(monitor: Monitor) -> list[TpmModel]:
    """None."""
    return []


@command("query-stats", boxed=True)
def query_stats(monitor: Monitor, filter: StatsFilter) -> list[StatsResult]:
    """None are kept."""
    return []


@command("query-block")
def query_block(monitor: Monitor) -> list[Any]:
    """Empty: disks are not told of."""
    return []


@command("query-blockstats")
def query_blockstats(monitor: Monitor, query_nodes: bool | None = None) -> list[Any]:
    """Empty: disks are not told of."""
    return []


@command("query-named-block-nodes")
def query_named_block_nodes(monitor: Monitor, flat: bool | None = None) -> list[Any]:
    """Empty: disks are not told of."""
    return []
