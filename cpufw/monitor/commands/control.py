"""Commands about the monitor itself."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, TypedDict

from cpufw.monitor.command import COMMANDS, command
from cpufw.monitor.errors import QmpError
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.schema import Introspection
from cpufw.monitor.session import CAPABILITIES, Session
from cpufw.monitor.version import VERSION

QMPCapability = Literal["oob"]


class VersionTriple(TypedDict):
    major: int
    minor: int
    micro: int


class VersionInfo(TypedDict):
    qemu: VersionTriple
    package: str


class CommandInfo(TypedDict):
    name: str


@command("qmp_capabilities")
def qmp_capabilities(
    monitor: Monitor, session: Session, enable: list[QMPCapability] | None = None
) -> None:
    """Enable capabilities that the greeting offers, and begin to take commands."""
    wanted = frozenset(enable or ())
    if missing := wanted - set(CAPABILITIES):
        raise QmpError(f"Capability {', '.join(sorted(missing))} is not available")
    session.capabilities, session.negotiated = wanted, True


@command("query-version")
def query_version(monitor: Monitor) -> VersionInfo:
    """The version of QEMU that this monitor speaks like, and cpufw's own."""
    return VERSION  # type: ignore[return-value]


@command("query-commands", allow_oob=True)
def query_commands(monitor: Monitor) -> list[CommandInfo]:
    """The name of each command."""
    return [{"name": name} for name in COMMANDS]


@command("query-qmp-schema")
def query_qmp_schema(monitor: Monitor) -> list[Any]:
    """Every command and event, with the types of what they take and give."""
    return _schema()


@cache
def _schema() -> list[dict[str, Any]]:
    introspection = Introspection()
    for each in COMMANDS.values():
        facts: dict[str, Any] = {}
        if each.features:
            facts["features"] = list(each.features)
        if each.allow_oob:
            facts["allow-oob"] = True
        introspection.add_command(each.name, each.arguments, each.returns, **facts)
    return introspection.entries


@command("quit", blocks=True)
def quit_(monitor: Monitor) -> None:
    """End the guest and cpufw."""
    monitor.emit("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
    monitor.machine.stop()
