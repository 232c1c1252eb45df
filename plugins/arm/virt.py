"""The virt machine: what it says of its CPUs. No guest runs on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpufw.core.board import BareBoard
from cpufw.errors import ModelError

if TYPE_CHECKING:
    from cpufw.core.machine import Machine

_GICV2_CPUS = 8  # CPU interfaces of a GICv2 (Arm IHI 0048, 1.1)


class VirtBoard(BareBoard):
    """A bare board with the CPUs that virt can hold, and its interrupt controller.

    `gic_version` is 2, or 3 where the machine can have more CPUs than a GICv2 serves. Raises
    `ModelError` for a CPU without A-profile exception levels and generic timer, as QEMU does.
    """

    def __init__(self, machine: Machine, options: Mapping[str, Any]) -> None:
        super().__init__(machine, options)
        model = machine.cpu_class.model
        isa = model.identity["isa"]
        if not isa.startswith(("armv7-a", "armv8-a")) or "cntfrq" not in model.identity:
            raise ModelError(
                f"{machine.machine_type.name} cannot hold {model.name} ({isa}): it takes A-profile "
                "CPUs with the generic timer, such as cortex-a15 or cortex-a57"
            )
        self.gic_version = 3 if machine.topology.max_cpus > _GICV2_CPUS else 2
