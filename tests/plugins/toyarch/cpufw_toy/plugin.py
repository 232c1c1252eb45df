"""Every hook of cpufw once, for a machine of sockets and cores whose CPUs only count."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from cpufw.command import Command
from cpufw.core.arch import AcceleratorType, Architecture, MachineType
from cpufw.core.board import BareBoard
from cpufw.core.cpu import CPUState
from cpufw.core.hotplug import HotplugEvent, Slot
from cpufw.core.topology import SlotId, Topology, TopologyLevel
from cpufw.errors import AcceleratorError
from cpufw.formats.format import Codec, Format
from cpufw.hookspecs import hookimpl

DEFINITIONS = Path(__file__).parent / "definitions"
RESERVED_SOCKET = 7

seen_events: list[HotplugEvent] = []
seen_cpus: list[CPUState] = []


def _cpu_base() -> type[CPUState]:
    from cpufw_toy.cpu import ToyCPU

    return ToyCPU


def _arch_id(topology: Topology, slot: SlotId) -> int:
    del topology
    return slot[TopologyLevel.SOCKET] * 1000 + slot[TopologyLevel.CORE]


def _open_clockwork() -> Any:
    from cpufw_toy.accelerator import Clockwork

    return Clockwork()


def _open_steam() -> Any:
    raise AcceleratorError("steam: there is no boiler on this host")


def _badge(arch: str) -> Codec:
    from cpufw_toy.badge import Badge

    return Badge(arch)


def _tick(options: Namespace) -> int:
    print("tick " * options.times)
    return 0


def _tick_options(parser: ArgumentParser) -> None:
    parser.add_argument("--times", type=int, default=1)


@hookimpl
def cpufw_architectures() -> list[Architecture]:
    """The toy architecture."""
    levels = (TopologyLevel.SOCKET, TopologyLevel.CORE)
    return [Architecture("toy", "a toy", DEFINITIONS / "toy", _cpu_base, levels, _arch_id)]


@hookimpl
def cpufw_definitions() -> list[Path]:
    """Models that start from the architecture's own."""
    return [DEFINITIONS / "more"]


@hookimpl
def cpufw_machine_types() -> list[MachineType]:
    """A bench to put toy CPUs on."""
    return [MachineType("toy-bench-1.0", "toy", "a bench", "mini", 16, BareBoard, "toy-bench")]


@hookimpl
def cpufw_accelerators() -> list[AcceleratorType]:
    """One accelerator that cannot be opened, and one that can."""
    return [
        AcceleratorType("steam", "toy", "needs a boiler", _open_steam),
        AcceleratorType("clockwork", "toy", "needs winding", _open_clockwork),
    ]


@hookimpl
def cpufw_commands() -> list[Command]:
    """`cpufw tick`."""
    return [Command("tick", "let the toy tick", _tick_options, _tick)]


@hookimpl
def cpufw_formats() -> list[Format]:
    """Badges."""
    return [Format("badge", "a toy's badge", _badge, "toy")]


@hookimpl
def cpufw_hotplug_veto(slot: Slot) -> str | None:
    """Keep one socket free; `kind` does not matter, so it is not asked for."""
    if slot.id.get(TopologyLevel.SOCKET) == RESERVED_SOCKET:
        return "this socket is reserved"
    return None


@hookimpl
def cpufw_hotplug_event(event: HotplugEvent) -> None:
    """Remember what happens."""
    seen_events.append(event)


@hookimpl
def cpufw_cpu_realized(cpu: CPUState) -> None:
    """Remember who came."""
    seen_cpus.append(cpu)
