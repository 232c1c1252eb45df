"""Commands about machine types, this machine, and the command line that makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NotRequired, TypedDict

from cpufw.monitor.command import command
from cpufw.monitor.command_line import PARAMETERS
from cpufw.monitor.errors import QmpError
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.schema import Features

if TYPE_CHECKING:
    from cpufw.core.arch import MachineType

CompatProperty = TypedDict("CompatProperty", {"qom-type": str, "property": str, "value": str})
MachineInfo = TypedDict(
    "MachineInfo",
    {
        "name": str,
        "alias": NotRequired[str],
        "is-default": NotRequired[bool],
        "cpu-max": int,
        "hotpluggable-cpus": bool,
        "numa-mem-supported": bool,
        "deprecated": bool,
        "default-cpu-type": NotRequired[str],
        "default-ram-id": NotRequired[str],
        "acpi": bool,
        "compat-props": NotRequired[Annotated[list[CompatProperty], Features("unstable")]],
    },
)
CommandLineParameterType = Literal["string", "boolean", "number", "size"]

CurrentMachineParams = TypedDict("CurrentMachineParams", {"wakeup-suspend-support": bool})


class CommandLineParameterInfo(TypedDict):
    name: str
    type: CommandLineParameterType
    help: NotRequired[str]
    default: NotRequired[str]


class CommandLineOptionInfo(TypedDict):
    option: str
    parameters: list[CommandLineParameterInfo]


@command("query-machines")
def query_machines(
    monitor: Monitor, compat_props: Annotated[bool, Features("unstable")] | None = None
) -> list[MachineInfo]:
    """The machine types of this architecture, and what each does to CPUs if asked for that."""
    arch = monitor.machine.cpu_class.arch
    kinds = monitor.framework.machine_types_of(arch)
    default = next((kind for kind in kinds if kind.accel is not None), None)
    answer = [_info(monitor, kind, kind is default, bool(compat_props)) for kind in kinds]
    none: MachineInfo = {
        "name": "none",
        "cpu-max": 1,
        "hotpluggable-cpus": False,
        "numa-mem-supported": False,
        "deprecated": False,
        "default-ram-id": "ram",
        "acpi": False,
    }
    return [*answer, none]


def _info(monitor: Monitor, kind: MachineType, is_default: bool, compat: bool) -> MachineInfo:
    answer: MachineInfo = {
        "name": kind.name,
        "cpu-max": kind.max_cpus,
        "hotpluggable-cpus": kind.hotpluggable_cpus,
        "numa-mem-supported": kind.numa_memory,
        "deprecated": kind.deprecated,
        "default-cpu-type": monitor.framework.registry.type_name(kind.arch, kind.default_cpu),
        "acpi": kind.acpi,
    }
    if kind.alias:
        answer["alias"] = kind.alias
    if is_default:
        answer["is-default"] = True
    if kind.ram_id:
        answer["default-ram-id"] = kind.ram_id
    if compat:
        answer["compat-props"] = [
            {"qom-type": each.type_name, "property": each.name, "value": each.value}
            for each in kind.compat
        ]
    return answer


@command("query-current-machine")
def query_current_machine(monitor: Monitor) -> CurrentMachineParams:
    """What this machine can do besides: it cannot be suspended."""
    return {"wakeup-suspend-support": False}


@command("query-command-line-options")
def query_command_line_options(
    monitor: Monitor, option: str | None = None
) -> list[CommandLineOptionInfo]:
    """The options of `cpufw-system-x86_64` that take parameters, or one of them."""
    if option is not None and option not in PARAMETERS:
        raise QmpError(f"invalid option name: {option}")
    names = PARAMETERS if option is None else [option]
    return [
        {
            "option": name,
            "parameters": [
                {"name": parameter, "type": kind}  # type: ignore[typeddict-item]
                for parameter, kind in PARAMETERS[name].items()
            ],
        }
        for name in names
    ]
