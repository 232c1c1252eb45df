"""What the ACPI tables have to describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cpufw_x86.numa import NumaLayout


@dataclass(frozen=True)
class AcpiCpu:
    """A slot of the machine: its CPU index (which is its `_UID`) and APIC id.

    `enabled`: it holds a CPU when the guest starts. `removable`: the guest may eject it.
    `node`: its NUMA node, if there are any.
    """

    index: int
    apic_id: int
    enabled: bool
    removable: bool = True
    node: int | None = None


@dataclass(frozen=True)
class AcpiConfig:
    """A machine with fixed ACPI hardware, local APICs, one I/O APIC and the CPU hot-plug block.

    cpus           every slot, the boot CPU first
    uarts          first port and ISA IRQ of each 16550
    virtio         address, size and global system interrupt (a level) of each virtio-mmio device
    pci            whether there is a PCI host bridge (configuration mechanism #1, no slots in use)
    pci_windows    memory that belongs to PCI devices
    ecam           where PCI configuration space is mapped, 1 MiB a bus, if it is
    numa           nodes, their memory and distances
    pic            whether there are two 8259s beside the I/O APIC, and the i8254
    rtc            whether there is an MC146818 with the CMOS
    i8042          whether there is a keyboard controller with a keyboard
    fw_cfg         first port of QEMU's fw_cfg device, if there is one
    reserved_ports ports of devices without a driver, which the guest must leave alone
    """

    cpus: Sequence[AcpiCpu]
    uarts: Sequence[tuple[int, int]] = ()
    virtio: Sequence[tuple[int, int, int]] = ()
    pci: bool = False
    pci_windows: Sequence[range] = (range(0xC000_0000, 0xFEB0_0000),)
    ecam: range | None = None
    numa: NumaLayout | None = None
    pic: bool = True
    rtc: bool = True
    i8042: bool = False
    fw_cfg: int | None = None
    reserved_ports: Sequence[range] = ()
