"""The s390x plugin's hooks: what it registers, at the cost of as few imports as possible."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cpufw.core.arch import Architecture, MachineType
from cpufw.core.board import BareBoard
from cpufw.core.topology import SlotId, Topology, TopologyLevel
from cpufw.hookspecs import hookimpl

if TYPE_CHECKING:
    from cpufw.core.algebra import ModelRules
    from cpufw.core.cpu import CPUState

ARCH = "s390x"
LEVELS = (TopologyLevel.DRAWER, TopologyLevel.BOOK, TopologyLevel.SOCKET, TopologyLevel.CORE)
# Those of QEMU's versions on which its CPU models are what they are on the newest, which is first.
VERSIONS = ("10.0", "9.2", "9.1", "9.0", "8.2", "8.1", "8.0", "7.2")
MAX_CPUS = 248  # S390_MAX_CPUS of QEMU: what fits into one SCCB


def core_id(topology: Topology, slot: SlotId) -> int:
    """The core id of a slot, which is also its CPU address: cores are counted through."""
    return topology.index(slot)


def slot_ids(topology: Topology, slot: SlotId) -> dict[str, int]:
    """The ids of a slot, as QEMU shows them: all four, with the core's counted through."""
    return {**slot.props(), TopologyLevel.CORE.id_name: core_id(topology, slot)}


def _cpu_base() -> type[CPUState]:
    from cpufw_s390x.cpu import S390xCPU

    return S390xCPU


def _rules() -> ModelRules:
    from cpufw_s390x.rules import S390xRules

    return S390xRules()


def _definitions() -> Path:
    spec = find_spec("cpufw_cpudefs")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ()))) / ARCH


@hookimpl
def cpufw_architectures() -> list[Architecture]:
    """s390x, with the models of QEMU 10.0."""
    return [
        Architecture(
            ARCH,
            "IBM Z processors, 64 bit",
            _definitions(),
            _cpu_base,
            LEVELS,
            core_id,
            _rules,
            wording={
                "no-such-model": "The CPU definition '{name}' is unknown.",
                "slot-taken": "Unable to add CPU with core-id: {arch_id}, it already exists",
                "out-of-range": "Unable to add CPU with {property}: {value}, "
                "maximum {property}: {last}",
            },
        )
    ]


@hookimpl
def cpufw_machine_types() -> list[MachineType]:
    """QEMU's s390x machine, to describe CPUs in; CPUs can be plugged and stay."""
    return [
        MachineType(
            f"s390-ccw-virtio-{version}",
            ARCH,
            "QEMU's virtual IBM Z, CPUs only",
            default_cpu="qemu",
            max_cpus=MAX_CPUS,
            board=BareBoard,
            alias="s390-ccw-virtio" if version == VERSIONS[0] else None,
            accel=None,
            can_unplug=False,
            ram_id="s390.ram",
            acpi=False,
            slot_ids=slot_ids,
        )
        for version in VERSIONS
    ]
