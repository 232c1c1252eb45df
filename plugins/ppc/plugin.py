"""The PowerPC plugin's hooks: what it registers, at the cost of as few imports as possible."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.core.arch import Architecture, MachineType, PlugUnit
from cpufw.core.topology import SlotId, Topology, TopologyLevel
from cpufw.hookspecs import hookimpl

if TYPE_CHECKING:
    from cpufw.core.algebra import ModelRules
    from cpufw.core.board import Board
    from cpufw.core.cpu import CPUState
    from cpufw.core.machine import Machine
    from cpufw.formats.format import Codec, Format

LEVELS = (TopologyLevel.SOCKET, TopologyLevel.CORE, TopologyLevel.THREAD)


def _cpu_base() -> type[CPUState]:
    from cpufw_ppc.cpu import PPCCPU

    return PPCCPU


def _rules() -> ModelRules:
    from cpufw_ppc.rules import PPCRules

    return PPCRules()


def _vcpu_id(topology: Topology, slot: SlotId) -> int:
    return topology.index(slot)


def _pseries(machine: Machine, options: Mapping[str, Any]) -> Board:
    from cpufw_ppc.pseries import pseries_board

    return pseries_board(machine, options)


def _powernv(machine: Machine, options: Mapping[str, Any]) -> Board:
    from cpufw_ppc.powernv import powernv_board

    return powernv_board(machine, options)


def _powernv_type(generation: int) -> MachineType:
    revision = {8: "v2.0", 9: "v2.2", 10: "v2.0"}[generation]
    return MachineType(
        f"powernv{generation}",
        "ppc64",
        f"Power server, CPUs only: POWER{generation}",
        default_cpu=f"power{generation}_{revision}",
        max_cpus=2048,
        board=_powernv,
        alias="powernv" if generation == 10 else None,
        accel=None,
        can_plug=False,
        can_unplug=False,
        hotpluggable_cpus=False,
    )


def _core_ids(topology: Topology, slot: SlotId) -> dict[str, int]:
    # The vCPU id of its first thread; without NUMA all are of node 0.
    return {"core-id": topology.index(slot), "node-id": 0}


def _libvirt(arch: str) -> Codec:
    from cpufw.formats.libvirt import LibvirtXml
    from cpufw.formats.libvirt_names import names_in

    return LibvirtXml(arch, names_in(_definitions()))


def _definitions() -> Path:
    spec = find_spec("cpufw_cpudefs")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ()))) / "ppc"


@hookimpl
def cpufw_architectures() -> list[Architecture]:
    """PowerPC in both widths, with the models of QEMU 10.0; ppc64 has all that ppc has."""
    definitions = _definitions()
    return [
        Architecture(
            name,
            description,
            definitions,
            _cpu_base,
            LEVELS,
            _vcpu_id,
            rules=_rules,
            case_sensitive=False,
            wording={
                "slot-taken": "core {arch_id} already populated",
                "out-of-range": "invalid core id {value}",
                "wrong-type": "CPU core type should be {expected}",
            },
        )
        for name, description in (
            ("ppc64", "Power processors, 64 and 32 bit"),
            ("ppc", "Power processors of 32 bit"),
        )
    ]


@hookimpl
def cpufw_machine_types() -> list[MachineType]:
    """A Power server's logical partition and the server itself; they describe CPUs, no more."""
    return [
        MachineType(
            "pseries-10.0",
            "ppc64",
            "Logical partition of a Power server (PAPR), CPUs only",
            default_cpu="power10",
            max_cpus=4096,
            board=_pseries,
            alias="pseries",
            ram_id="ppc_spapr.ram",
            acpi=False,
            accel=None,
            plug_unit=PlugUnit(TopologyLevel.CORE, "{model}-spapr-cpu-core", _core_ids),
        ),
        *map(_powernv_type, (8, 9, 10)),
    ]


@hookimpl
def cpufw_formats() -> list[Format]:
    """What libvirt calls models."""
    from cpufw.formats.format import Format

    return [Format("libvirt", "libvirt's <cpu> XML", _libvirt, "ppc64")]
