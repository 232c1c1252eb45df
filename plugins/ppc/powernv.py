"""The powernv machines: a Power server with no hypervisor below its Linux, CPUs only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpufw.core.board import BareBoard
from cpufw.core.topology import TopologyLevel
from cpufw.errors import ModelError, TopologyError

if TYPE_CHECKING:
    from cpufw.core.machine import Machine

THREADS_OF_A_CORE = {"POWER8": 8, "POWER9": 4, "POWER10": 4}
"""The most that a core of the family's chip for this machine runs (SMT8, SMT4)."""


def powernv_board(machine: Machine, options: Mapping[str, Any]) -> BareBoard:
    """A board without a guest, for the CPU models whose chip is the machine's.

    Raises `ModelError` for another model, `TopologyError` for more threads than a core has.
    """
    kind, model = machine.machine_type, machine.cpu_class.model
    family = kind.description.split()[-1]
    if model.family != family or "powernv" not in model.identity.get("cores", ()):
        raise ModelError(
            f"{kind.name} has no chip of CPU model '{model.name}'; its own is {kind.default_cpu}"
        )
    threads, most = machine.topology.count(TopologyLevel.THREAD), THREADS_OF_A_CORE[family]
    if threads > most or threads & (threads - 1):
        raise TopologyError(
            f"--smp: {kind.name} has no cores of {threads} threads, only a power of 2 up to {most}"
        )
    return BareBoard(machine, options)
