"""The Arm plugin's hooks: what it registers, at the cost of as few imports as possible."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.core.arch import Architecture, CompatProperty, MachineType
from cpufw.hookspecs import hookimpl
from cpufw_arm.affinity import ARM_LEVELS, mpidr_affinity

if TYPE_CHECKING:
    from cpufw.core.algebra import ModelRules
    from cpufw.core.board import Board
    from cpufw.core.cpu import CPUState
    from cpufw.core.machine import Machine
    from cpufw.formats.format import Codec, Format

BASE_TYPE = "arm-cpu"
MAX_CPUS = 512

# QEMU's versions of the virt machine: the newest has the alias.
_VIRT_VERSIONS = (
    *("2.6", "2.7", "2.8", "2.9", "2.10", "2.11", "2.12", "3.0", "3.1", "4.0", "4.1", "4.2", "5.0"),
    *("5.1", "5.2", "6.0", "6.1", "6.2", "7.0", "7.1", "7.2", "8.0", "8.1", "8.2", "9.0", "9.1"),
    *("9.2", "10.0"),
)

# What virt gives its CPUs: PSCI by HVC, no EL2 and EL3 unless asked for, a GIC at 0x8000000.
_VIRT = (
    CompatProperty(BASE_TYPE, "has_el2", "off"),
    CompatProperty(BASE_TYPE, "has_el3", "off"),
    CompatProperty(BASE_TYPE, "psci-conduit", "2"),
    CompatProperty(BASE_TYPE, "reset-cbar", "0x8000000"),
)

# What each change left as it was on the machine versions up to and with the given one.
_UNCHANGED_UNTIL = (
    ("9.2", CompatProperty(BASE_TYPE, "backcompat-pauth-default-use-qarma5", "on")),
    ("9.0", CompatProperty(BASE_TYPE, "backcompat-cntfrq", "on")),
    ("6.2", CompatProperty("max-arm-cpu", "lpa2", "off")),
    ("2.6", CompatProperty(BASE_TYPE, "pmu", "off")),
)


def _cpu_base() -> type[CPUState]:
    from cpufw_arm.cpu import ArmCPU

    return ArmCPU


def _rules() -> ModelRules:
    from cpufw_arm.rules import ArmRules

    return ArmRules()


def _virt(machine: Machine, options: Mapping[str, Any]) -> Board:
    from cpufw_arm.virt import VirtBoard

    return VirtBoard(machine, options)


def _firecracker(arch: str) -> Codec:
    from cpufw_arm.formats.firecracker import FirecrackerTemplate

    return FirecrackerTemplate(arch)


def _libvirt(arch: str) -> Codec:
    from cpufw.formats.libvirt import LibvirtXml
    from cpufw.formats.libvirt_names import names_in

    return LibvirtXml(arch, names_in(_definitions()))


def _definitions() -> Path:
    spec = find_spec("cpufw_cpudefs")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ()))) / "arm"


@hookimpl
def cpufw_architectures() -> list[Architecture]:
    """64-bit and 32-bit Arm, with the models of QEMU 10.0."""
    described = {"aarch64": "Arm processors, 64 and 32 bit", "arm": "Arm processors, 32 bit"}
    return [
        Architecture(
            name,
            description,
            _definitions(),
            _cpu_base,
            ARM_LEVELS,
            mpidr_affinity,
            _rules,
            has_node_id=True,
            wording={
                "no-such-model": "The CPU type '{name}' is not a recognized ARM CPU type",
            },
        )
        for name, description in described.items()
    ]


@hookimpl
def cpufw_machine_types() -> list[MachineType]:
    """QEMU's virt machines, as far as they say what a CPU is; no guest runs on them."""
    return [_virt_type(version) for version in reversed(_VIRT_VERSIONS)]


@hookimpl
def cpufw_formats() -> list[Format]:
    """Firecracker's templates, which speak of ID registers, and libvirt's names of models."""
    from cpufw.formats.format import Format

    return [
        Format("firecracker", "a Firecracker CPU template", _firecracker, "aarch64"),
        Format("libvirt", "libvirt's <cpu> XML", _libvirt, "aarch64"),
    ]


def _virt_type(version: str) -> MachineType:
    def number(text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split(".")))

    newest = version == _VIRT_VERSIONS[-1]
    compat = [each for last, each in _UNCHANGED_UNTIL if number(version) <= number(last)]
    return MachineType(
        f"virt-{version}",
        "aarch64",
        f"QEMU's virt-{version}, to describe CPUs",
        default_cpu="cortex-a15",
        max_cpus=MAX_CPUS if number(version) >= (3, 0) else 255,
        board=_virt,
        alias="virt" if newest else None,
        compat=(*_VIRT, *compat),
        accel=None,
        slot_ids=lambda _topology, slot: slot.props(),
        can_plug=False,
        can_unplug=False,
        ram_id="mach-virt.ram",
        hotpluggable_cpus=False,
    )
