"""What QEMU 10.0.2 says of its Arm CPUs, from tests/data/qemu10."""

from __future__ import annotations

import json
import lzma
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from cpufw.core.arch import MachineType
from cpufw.core.board import BareBoard
from cpufw.core.cpu import CPUClass
from cpufw.core.machine import Machine
from cpufw.core.topology import parse_smp
from cpufw.framework import default
from cpufw_arm.cpu import ArmCPU

DATA = Path(__file__).parent.parent / "data" / "qemu10"
ARCHITECTURES = ("aarch64", "arm")

# Registers of the reference that are no constants of a model: why, and a pattern for their names.
# What a pattern says of values is checked by test_what_is_left_out_is_what_it_is_said_to_be.
LEFT_OUT = {
    "the Secure view of a register that is compared": r".*_S",
    "a reserved encoding of the ID space, which reads as zero": r"RES_\d.*|ID_AA64\w+_RESERVED",
    "the same register seen from another exception level": r"SCTLR_EL(12|3)",
    "EL2's copy of MIDR, for its guests": r"VPIDR(_EL2)?",
    "EL2's copy of MPIDR, for its guests": r"VMPIDR(_EL2)?",
    "how the CPU comes out of reset": r"RMR(_EL\d)?|SCR_EL3",
    "debug locks and claim tags at reset": r"OSLSR_EL1|DBGCLAIMSET_EL1",
    "what EL2 lets through at reset": r"HCR(_EL2)?|CNTHCTL_EL2|MDCR_EL2",
    "which coprocessors are open at reset": r"CPACR|NSACR",
    "a working register of the TI925T": r"IMIN|IMAX",
}


@cache
def load(name: str) -> Any:
    """The document `name`, unpacked."""
    return json.loads(lzma.decompress((DATA / f"{name}.xz").read_bytes()))


def reason_to_leave_out(register: str) -> str | None:
    """Why a register of the reference is not compared, if it is not."""
    return next((r for r, names in LEFT_OUT.items() if re.fullmatch(names, register)), None)


def machine_type(name: str, arch: str) -> MachineType:
    """The machine type `name`; `none` holds all models and gives their CPUs nothing."""
    if name == "none":
        return MachineType("none", arch, "", "max", 512, BareBoard, accel=None)
    return default().machine_type(name)


def cpu_class(model: str, arch: str) -> CPUClass:
    """The CPU type of `model`; both architectures have types of the same names."""
    return default().find_model(model, arch)


def machine(name: str, arch: str, model: str, smp: str = "1", **properties: Any) -> Machine:
    """A machine of type `name` whose CPUs are of `model`."""
    kind = replace(machine_type(name, arch), arch=arch)
    cpus = cpu_class(model, arch)
    topology = parse_smp(smp, cpus.architecture.levels, kind.max_cpus)
    return Machine(kind, cpus, default().registry, topology, None, properties)


def realized(name: str, arch: str, model: str, smp: str = "1", **properties: Any) -> ArmCPU:
    """The first CPU of such a machine."""
    cpu = machine(name, arch, model, smp, **properties).cpus()[0]
    assert isinstance(cpu, ArmCPU)
    return cpu


def registers(values: dict[str, str]) -> dict[str, int]:
    """Register values as numbers."""
    return {name: int(value, 16) for name, value in values.items()}
