"""The x86 plugin's hooks: what it registers, at the cost of as few imports as possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.core.arch import AcceleratorType, Architecture, MachineType, PlugUnit
from cpufw.core.topology import TopologyLevel
from cpufw.hookspecs import hookimpl
from cpufw_x86.apicid import X86_LEVELS, apic_id

if TYPE_CHECKING:
    from cpufw.core.accel import Accelerator
    from cpufw.core.algebra import ModelRules
    from cpufw.core.board import Board
    from cpufw.core.capture import CaptureRules
    from cpufw.core.cpu import CPUState
    from cpufw.core.machine import Machine
    from cpufw.core.topology import Topology
    from cpufw.formats.format import Codec, Format

ARCH = "x86_64"
_PC_DEVICES = {
    "fw_cfg_io": "sys-bus-device",
    "i8042": "isa-device",
    "ioapic": "sys-bus-device",
    "isa-debug-exit": "isa-device",
    "isa-debugcon": "isa-device",
    "isa-serial": "isa-device",
    "kvm-apic": "device",
    "kvm-i8259": "isa-device",
    "kvm-ioapic": "sys-bus-device",
    "kvm-pit": "isa-device",
    "mc146818rtc": "isa-device",
    "pvpanic": "isa-device",
    "virtio-blk-device": "virtio-device",
    "virtio-mmio": "sys-bus-device",
    "virtio-rng-device": "virtio-device",
    "virtio-serial-device": "virtio-device",
}
MAX_CPUS = 1024  # KVM_MAX_VCPUS of an ordinary kernel; APIC ids beyond 254 need x2APIC


def _cpu_base() -> type[CPUState]:
    from cpufw_x86.cpu import X86CPU

    return X86CPU


def _capture() -> CaptureRules:
    from cpufw_x86.capture import X86CaptureRules

    return X86CaptureRules()


def _rules() -> ModelRules:
    from cpufw_x86.rules import X86Rules

    return X86Rules()


def _no_such_place(topology: Topology, facts: Mapping[str, Any]) -> str:
    from cpufw_x86.wording import no_such_place

    return no_such_place(topology, facts)


def _contradiction(topology: Topology, facts: Mapping[str, Any]) -> str:
    from cpufw_x86.wording import contradiction

    return contradiction(topology, facts)


def _libvirt(arch: str) -> Codec:
    from cpufw.formats.libvirt import LibvirtXml
    from cpufw_x86.formats.libvirt import libvirt_names

    return LibvirtXml(arch, libvirt_names)


def _kubevirt(arch: str) -> Codec:
    from cpufw.formats.kubevirt import KubevirtSpec
    from cpufw_x86.formats.libvirt import libvirt_names

    return KubevirtSpec(arch, libvirt_names)


def _kubevirt_node(arch: str) -> Codec:
    from cpufw.formats.kubevirt import KubevirtNode
    from cpufw_x86.formats.libvirt import libvirt_names

    return KubevirtNode(arch, libvirt_names)


def _cpuid_raw(arch: str) -> Codec:
    from cpufw_x86.formats.cpuid_raw import CpuidRaw

    return CpuidRaw(arch)


def _firecracker(arch: str) -> Codec:
    from cpufw_x86.formats.firecracker import FirecrackerTemplate

    return FirecrackerTemplate(arch)


def _cloud_hypervisor(arch: str) -> Codec:
    from cpufw_x86.formats.cloud_hypervisor import CloudHypervisorCpus

    return CloudHypervisorCpus(arch)


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
            ARCH,
            "x86 processors, 32 and 64 bit",
            _definitions(),
            _cpu_base,
            X86_LEVELS,
            apic_id,
            rules=_rules,
            capture=_capture,
            arch_id_name="apic-id",
            has_node_id=True,
            wording={
                "slot-taken": "CPU[{index}] with APIC ID {arch_id} exists",
                "no-such-place": _no_such_place,
                "contradiction": _contradiction,
            },
        )
    ]


@hookimpl
def cpufw_machine_types() -> list[MachineType]:
    """The PC, and PCs whose CPUs come and go by whole sockets or cores."""
    pc = MachineType(
        "pc-0.1",
        ARCH,
        "PC with ACPI CPU hot-plug",
        default_cpu="qemu64",
        max_cpus=MAX_CPUS,
        board=_pc,
        alias="pc",
        ram_id="pc.ram",
        demo={
            "kernel": Path(__file__).parent / "guest" / "demo.bin",
            "entry_mode": "protected",
            "memory": "16M",
        },
        bases=("generic-pc-machine", "x86-machine"),
        devices=_PC_DEVICES,
        runs=("pc-i440fx", "pc-q35"),
    )
    return [
        pc,
        *(
            replace(
                pc,
                name=f"pc-{level.value}-0.1",
                alias=f"pc-{level.value}",
                description=f"PC whose CPUs come and go by whole {level.plural}",
                demo=None,
                runs=(),
                plug_unit=PlugUnit(level, f"{{model}}-{ARCH}-{level.value}"),
            )
            for level in (TopologyLevel.SOCKET, TopologyLevel.CORE)
        ),
    ]


@hookimpl
def cpufw_accelerators() -> list[AcceleratorType]:
    """KVM."""
    return [AcceleratorType("kvm", ARCH, "Linux's /dev/kvm", _open_kvm)]


@hookimpl
def cpufw_formats() -> list[Format]:
    """What knows libvirt's models of x86, and what speaks of CPUID and MSRs."""
    from cpufw.formats.format import Format

    return [
        Format("libvirt", "libvirt's <cpu> XML", _libvirt, ARCH),
        Format("cpuid-raw", "what cpuid -r prints", _cpuid_raw, ARCH),
        Format("firecracker", "a Firecracker CPU template", _firecracker, ARCH),
        Format("cloud-hypervisor", "Cloud Hypervisor's --cpus", _cloud_hypervisor, ARCH),
        Format("kubevirt-node", "KubeVirt's labels of a node", _kubevirt_node, ARCH),
        Format("kubevirt", "a KubeVirt VirtualMachine's spec", _kubevirt, ARCH),
    ]
