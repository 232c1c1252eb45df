"""Commands that let the guest run, hold it, reset it, or turn it off."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from cpufw.monitor.command import command
from cpufw.monitor.errors import QmpError
from cpufw.monitor.monitor import Monitor

RunState = Literal[
    "debug", "inmigrate", "internal-error", "io-error", "paused", "postmigrate", "prelaunch",
    "finish-migrate", "restore-vm", "running", "save-vm", "shutdown", "suspended", "watchdog",
    "guest-panicked", "colo",
]  # fmt: skip


class StatusInfo(TypedDict):
    running: bool
    status: RunState


class NameInfo(TypedDict):
    name: NotRequired[str]


class UuidInfo(TypedDict):
    UUID: str


class KvmInfo(TypedDict):
    enabled: bool
    present: bool


@command("query-status")
def query_status(monitor: Monitor) -> StatusInfo:
    """Whether the guest runs, and if not why."""
    status = monitor.machine.status
    return {"running": status == "running", "status": status}  # type: ignore[typeddict-item]


@command("query-name")
def query_name(monitor: Monitor) -> NameInfo:
    """The guest's name, if it has one."""
    return {"name": monitor.name} if monitor.name else {}


@command("query-uuid")
def query_uuid(monitor: Monitor) -> UuidInfo:
    """The guest's UUID; all zero if it has none."""
    return {"UUID": monitor.uuid}


@command("query-kvm")
def query_kvm(monitor: Monitor) -> KvmInfo:
    """Whether there is KVM, and whether this machine uses it."""
    present = any(kind.name == "kvm" for kind in monitor.framework.accelerators)
    return {"enabled": monitor.machine.accelerator_name == "kvm", "present": present}


@command("stop", blocks=True)
def stop(monitor: Monitor) -> None:
    """Hold all vCPUs."""
    monitor.machine.pause()


@command("cont", blocks=True)
def cont(monitor: Monitor) -> None:
    """Let the guest begin, or go on."""
    if monitor.machine.status in ("shutdown", "internal-error"):
        raise QmpError("Resetting the Virtual Machine is required")
    if monitor.machine.status == "postmigrate":
        raise QmpError("The guest was migrated: it runs elsewhere, and must not run here too")
    if monitor.machine.status == "prelaunch":
        monitor.machine.start()
    else:
        monitor.machine.resume()


@command("system_reset", blocks=True)
def system_reset(monitor: Monitor) -> None:
    """Reset the machine."""
    monitor.machine.reset()


@command("system_powerdown", blocks=True)
def system_powerdown(monitor: Monitor) -> None:
    """Press the power button."""
    monitor.machine.powerdown()


@command("inject-nmi", blocks=True)
def inject_nmi(monitor: Monitor) -> None:
    """Give every CPU a non-maskable interrupt."""
    monitor.machine.nmi()
