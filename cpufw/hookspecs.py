"""Every hook of cpufw: the whole contract between the framework and its plugins.

A plugin is a module or object named by an entry point of the group `cpufw`; it marks its functions
with `cpufw.hookspecs.hookimpl`. Built-in architectures use the same way in.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would cost start-up time
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any, TypeVar

    from cpufw.command import Command
    from cpufw.core.arch import AcceleratorType, Architecture, MachineType
    from cpufw.core.cpu import CPUState
    from cpufw.core.hotplug import HotplugEvent, HotplugEventKind, Slot
    from cpufw.formats.format import Format

    Hook = TypeVar("Hook", bound=Callable[..., Any])

GROUP = "cpufw"


def hookspec(function: Hook) -> Hook:
    """Mark `function` as a hook, in the way of pluggy's `HookspecMarker("cpufw")`."""
    function.cpufw_spec = {}  # type: ignore[attr-defined]  # pluggy's own marker costs its import
    return function


def hookimpl(function: Hook) -> Hook:
    """Mark `function` as an implementation of the hook of its name.

    pluggy's `HookimplMarker("cpufw")` may be used as well.
    """
    function.cpufw_impl = {}  # type: ignore[attr-defined]
    return function


@hookspec
def cpufw_architectures() -> list[Architecture]:  # type: ignore[empty-body]
    """The architectures this plugin brings, each with its folder of definitions."""


@hookspec
def cpufw_machine_types() -> list[MachineType]:  # type: ignore[empty-body]
    """The machine types this plugin brings, the preferred one of an architecture first."""


@hookspec
def cpufw_accelerators() -> list[AcceleratorType]:  # type: ignore[empty-body]
    """The accelerators this plugin brings, in the order in which they are tried."""


@hookspec
def cpufw_definitions() -> list[Path]:  # type: ignore[empty-body]
    """Folders with further models for architectures that exist already."""


@hookspec
def cpufw_commands() -> list[Command]:  # type: ignore[empty-body]
    """Subcommands this plugin adds to the `cpufw` command."""


@hookspec
def cpufw_formats() -> list[Format]:  # type: ignore[empty-body]
    """The formats in which models of this plugin's architectures are written and read."""


@hookspec
def cpufw_hotplug_veto(slot: Slot, kind: HotplugEventKind) -> str | None:
    """Say why a plug (`PLUGGING`) or an unplug (`UNPLUG_REQUESTED`) must not be; None allows it."""


@hookspec
def cpufw_hotplug_event(event: HotplugEvent) -> None:
    """Watch every hot-plug event of every machine; called with the machine locked, so be brief."""


@hookspec
def cpufw_cpu_realized(cpu: CPUState) -> None:
    """Observe each CPU that a machine has realized, with what it was granted."""
