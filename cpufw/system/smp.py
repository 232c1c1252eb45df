"""`-smp`, and what QEMU says of a topology that cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cpufw.core.topology import Topology, TopologyLevel, build_topology
from cpufw.errors import TopologyError
from cpufw.system.errors import CommandLineError

if TYPE_CHECKING:
    from cpufw.core.arch import MachineType
    from cpufw.system.keyval import Settings

_KNOWN = ("cpus", "maxcpus", *(level.plural for level in TopologyLevel))


def topology_of(
    smp: Settings | None, kind: MachineType, levels: Sequence[TopologyLevel]
) -> Topology:
    """The topology that `-smp` describes on a machine of type `kind`.

    Raises `CommandLineError`.
    """
    given = {} if smp is None else {name: smp.take(name) for name in tuple(smp.values)}
    counts: dict[str, int] = {}
    for name, text in given.items():
        if name not in _KNOWN:
            raise CommandLineError(f"Parameter 'smp.{name}' is unexpected")
        if not (text.isascii() and text.isdecimal()) or len(text) > 9:
            raise CommandLineError(f"Parameter 'smp.{name}' expects integer")
        counts[name] = int(text)
    if not counts:
        counts = {"cpus": 1}
    try:
        return build_topology(counts, levels, kind.max_cpus)
    except TopologyError as error:
        raise CommandLineError(_wording(error, kind)) from None


def _wording(error: TopologyError, kind: MachineType) -> str:
    facts = error.facts
    match error.reason:
        case "not-positive":
            return "Invalid CPU topology: CPU topology parameters must be greater than zero"
        case "no-level":
            return f"{facts['level']} > 1 not supported by this machine's CPU topology"
        case "product":
            return (
                "Invalid CPU topology: product of the hierarchy must match maxcpus: "
                f"{facts['shape']} != maxcpus ({facts['max_cpus']})"
            )
        case "too-few":
            return (
                "Invalid CPU topology: maxcpus must be equal to or greater than smp: "
                f"{facts['shape']} == maxcpus ({facts['max_cpus']}) < smp_cpus ({facts['cpus']})"
            )
        case "limit":
            return (
                f"Invalid SMP CPUs {facts['max_cpus']}. The max CPUs supported by machine "
                f"'{kind.name}' is {kind.max_cpus}"
            )
    return str(error)
