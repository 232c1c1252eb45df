"""Commands about what cpufw's machines do not have: they answer with nothing."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from cpufw.monitor.command import command
from cpufw.monitor.monitor import Monitor

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
