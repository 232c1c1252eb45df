"""The pseries machine: a logical partition of a Power server (PAPR), CPUs only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpufw.core.board import BareBoard
from cpufw.core.topology import TopologyLevel
from cpufw.errors import ModelError, TopologyError

if TYPE_CHECKING:
    from cpufw.core.machine import Machine


def pseries_board(machine: Machine, options: Mapping[str, Any]) -> BareBoard:
    """A board without a guest for a model that has cores for it.

    Raises `ModelError` for another model, `TopologyError` for a number of threads that no core has.
    """
    name, model = machine.machine_type.name, machine.cpu_class.model
    if "spapr" not in model.identity.get("cores", ()):
        raise ModelError(f"{name} has no core of CPU model '{model.name}'")
    threads = machine.topology.count(TopologyLevel.THREAD)
    if threads & (threads - 1):
        raise TopologyError(f"--smp: {name} has no cores of {threads} threads, only a power of 2")
    return BareBoard(machine, options)
