"""The x86 plugin's hooks: what it registers, at the cost of as few imports as possible."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.core.arch import AcceleratorType, Architecture, MachineType
from cpufw.hookspecs import hookimpl
from cpufw_x86.apicid import X86_LEVELS, apic_id

if TYPE_CHECKING:
    from cpufw.core.accel import Accelerator
    from cpufw.core.board import Board
    from cpufw.core.cpu import CPUState
    from cpufw.core.machine import Machine

ARCH = "x86_64"
MAX_CPUS = 1024  # KVM_MAX_VCPUS of an ordinary kernel; APIC ids beyond 254 need x2APIC


def _cpu_base() -> type[CPUState]:
    from cpufw_x86.cpu import X86CPU

    return X86CPU


def _open_kvm() -> Accelerator:
    from cpufw_x86.accelerator import X86KvmAccelerator

    return X86KvmAccelerator()


def _pc(machine: Machine, options: Mapping[str, Any]) -> Board:
    from cpufw_x86.pc import PcBoard

    return PcBoard(machine, options)


def _definitions() -> Path:
    spec = find_spec("cpufw_cpudefs")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ()))) / "x86"


@hookimpl
def cpufw_architectures() -> list[Architecture]:
    """x86-64, with the models of QEMU 10.0."""
    return [
        Architecture(
            ARCH, "x86 processors, 32 and 64 bit", _definitions(), _cpu_base, X86_LEVELS, apic_id
        )
    ]


@hookimpl
def cpufw_machine_types() -> list[MachineType]:
    """The PC."""
    return [
        MachineType(
            "pc-0.1",
            ARCH,
            "PC with ACPI CPU hot-plug",
            default_cpu="qemu64",
            max_cpus=MAX_CPUS,
            board=_pc,
            alias="pc",
            demo={
                "kernel": Path(__file__).parent / "guest" / "demo.bin",
                "entry_mode": "protected",
                "memory": "16M",
            },
        )
    ]


@hookimpl
def cpufw_accelerators() -> list[AcceleratorType]:
    """KVM."""
    return [AcceleratorType("kvm", ARCH, "Linux's /dev/kvm", _open_kvm)]
