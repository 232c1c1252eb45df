"""Commands about the monitor itself."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from cpufw.monitor.command import COMMANDS, command
from cpufw.monitor.errors import QmpError
from cpufw.monitor.event_types import EVENTS
from cpufw.monitor.introspection import Introspection
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.schema import Features, Variants
from cpufw.monitor.session import Session
from cpufw.monitor.version import CAPABILITIES, VERSION

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


SchemaMetaType = Literal["builtin", "enum", "array", "object", "alternate", "command", "event"]
JSONType = Literal["string", "number", "int", "boolean", "null", "object", "array", "value"]


class SchemaInfoEnumMember(TypedDict):
    name: str
    features: NotRequired[list[str]]


class SchemaInfoEnum(TypedDict):
    members: list[SchemaInfoEnumMember]
    values: Annotated[list[str], Features("deprecated")]


class SchemaInfoObjectMember(TypedDict):
    name: str
    type: str
    default: NotRequired[Any]
    features: NotRequired[list[str]]


class SchemaInfoObjectVariant(TypedDict):
    case: str
    type: str


class SchemaInfoObject(TypedDict):
    members: list[SchemaInfoObjectMember]
    tag: NotRequired[str]
    variants: NotRequired[list[SchemaInfoObjectVariant]]


class SchemaInfoAlternateMember(TypedDict):
    type: str


class SchemaInfoAlternate(TypedDict):
    members: list[SchemaInfoAlternateMember]


SchemaInfoBuiltin = TypedDict("SchemaInfoBuiltin", {"json-type": JSONType})
SchemaInfoArray = TypedDict("SchemaInfoArray", {"element-type": str})
SchemaInfoCommand = TypedDict(
    "SchemaInfoCommand", {"arg-type": str, "ret-type": str, "allow-oob": NotRequired[bool]}
)
SchemaInfoEvent = TypedDict("SchemaInfoEvent", {"arg-type": str})
SchemaInfoBase = TypedDict(
    "SchemaInfoBase",
    {"name": str, "meta-type": SchemaMetaType, "features": NotRequired[list[str]]},
)
SchemaInfo = Annotated[
    SchemaInfoBase,
    Variants(
        "meta-type",
        {
            "builtin": SchemaInfoBuiltin,
            "enum": SchemaInfoEnum,
            "array": SchemaInfoArray,
            "object": SchemaInfoObject,
            "alternate": SchemaInfoAlternate,
            "command": SchemaInfoCommand,
            "event": SchemaInfoEvent,
        },
    ),
]


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
def query_qmp_schema(monitor: Monitor) -> list[SchemaInfo]:
    """Every command and event, with the types of what they take and give."""
    return _schema()  # type: ignore[return-value]


@cache
def _schema() -> list[dict[str, Any]]:
    introspection = Introspection()
    for each in COMMANDS.values():
        facts: dict[str, Any] = {}
        if each.features:
            facts["features"] = list(each.features)
        if each.allow_oob:
            facts["allow-oob"] = True
        introspection.add_command(each.name, each.argument_type, each.returns, **facts)
    for event, data in EVENTS.items():
        introspection.add_event(event, data)
    return introspection.entries


@command("quit", blocks=True)
def quit_(monitor: Monitor) -> None:
    """End the guest and cpufw."""
    monitor.emit("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
    monitor.machine.stop()
    monitor.ended.set()
