"""What a PC has on its board: interrupt controllers, timers, and the devices behind its buses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cpufw_x86.acpi import AcpiConfig, AcpiCpu
from cpufw_x86.devices import (
    BOCHS_PORT,
    I8042,
    KEYBOARD_IRQ,
    RTC_IRQ,
    SEABIOS_PORT,
    AcpiPm,
    CpuHotplugBlock,
    DebugConsole,
    DebugExit,
    FwCfg,
    MmioBus,
    PciEcam,
    PciHost,
    Port92,
    PortBus,
    Pvpanic,
    ResetControl,
    Rtc,
    Testdev,
    TestdevMemory,
    cmos_contents,
    cpu_count_item,
    machine_items,
)
from cpufw_x86.devices.serial import SerialPorts
from cpufw_x86.devices.virtio import VIRTIO_ADDRESS, PcVirtio, open_virtio
from cpufw_x86.irqchip import create_irqchip
from cpufw_x86.memory_map import HOLE_START, PCI_CONFIG
from cpufw_x86.numa import parse_numa
from cpufw_x86.ost import take_ost

if TYPE_CHECKING:
    from cpufw_x86.kvm import X86VM
    from cpufw_x86.pc import PcBoard

SCI_IRQ = 9  # ACPI 6.5, 5.2.9, SCI_INT; the PC's customary line


class Chipset:
    """The devices of `board`, made before the first vCPU.

    `ports` and `memory` answer the guest's accesses; `devices` are all those with state.
    """

    def __init__(self, board: PcBoard, vm: X86VM) -> None:
        machine, options = board.machine, board.options
        devices = open_virtio(
            options.drives, options.virtio_console, options.rng, board.on_output_error
        )
        highest = max(slot.arch_id for slot in machine.slots)
        self.irqchip = create_irqchip(vm, board.options.kernel_irqchip, highest)
        self._slots = machine.slots
        self.numa = parse_numa(options.numa, machine.topology, options.memory)
        low = min(board.options.memory, HOLE_START)
        contents = cmos_contents(low, board.options.memory - low, cpus=machine.topology.cpus)
        self.serial = SerialPorts(vm, board.options.serial, board.on_output_error, board.on_command)
        self.pm = AcpiPm(self._line(SCI_IRQ), board.on_power_off)
        self.hotplug = CpuHotplugBlock(
            [slot.arch_id for slot in machine.slots],
            raise_gpe=self.pm.raise_gpe,
            on_ost=lambda index, *said: take_ost(machine, machine.slots[index], *said),
            on_eject=lambda index: machine.eject(machine.slots[index]),
        )
        self.hotplug.attach(vm)
        self.rtc = Rtc(self._line(RTC_IRQ), contents)
        self.fw_cfg = FwCfg(
            machine_items(
                board.options.memory,
                machine.topology.cpus,
                highest + 1,
                irq0_override=self.irqchip.has_pic,
            ),
            read_memory=board.ram.read_some,
            write_memory=board.ram.write,
        )
        on_reset = board.on_reset_request
        pci = PciHost()
        with_ports = (
            self.pm,
            self.hotplug,
            self.rtc,
            I8042(on_reset, self._line(KEYBOARD_IRQ)),
            Port92(on_reset),
            ResetControl(on_reset),
            pci,
            self.fw_cfg,
            Testdev(self.irqchip.set_irq),
        )
        testdev_memory = TestdevMemory()
        self.devices = (*with_ports, testdev_memory)
        self.ports, self.memory = PortBus(), MmioBus()
        for device in (
            *with_ports,
            DebugExit(board.on_debug_exit),
            Pvpanic(board.on_panic),
            DebugConsole(self._print, BOCHS_PORT),
            DebugConsole(self._print, SEABIOS_PORT),
        ):
            self.ports.add(device)
        self.memory.add(testdev_memory)
        self.memory.add(PciEcam(pci))
        if self.irqchip.ioapic is not None:
            self.memory.add(self.irqchip.ioapic)
        self.virtio = PcVirtio(vm, board.ram.blocks, devices, self.irqchip.set_irq)
        for transport in self.virtio.transports:
            self.memory.add(transport)
        self._console = options.virtio_console
        if self._console is not None:
            self._console.on_command = board.on_command

    def _line(self, irq: int) -> Callable[[bool], None]:
        return lambda level: self.irqchip.set_irq(irq, level)

    def _print(self, data: bytes) -> None:
        """Where debug consoles print: on COM1's console."""
        if self.serial.ports:
            self.serial.ports[0].send(data)

    def acpi(self) -> AcpiConfig:
        """What the ACPI tables have to say, with the CPUs that are plugged now."""
        slots = [
            AcpiCpu(
                slot.index,
                slot.arch_id,
                enabled=slot.cpu is not None,
                removable=slot.index > 0,
                node=self.numa.slots[slot.index] if self.numa else None,
            )
            for slot in self._slots
        ]
        slots[0] = replace(slots[0], enabled=True)  # also before it is plugged
        uarts = [(port.place.port, port.place.irq) for port in self.serial.ports]
        return AcpiConfig(
            slots,
            uarts=uarts,
            virtio=self.virtio.acpi,
            pci=True,
            pci_windows=(
                range(HOLE_START, PCI_CONFIG.start),
                range(PCI_CONFIG.stop, VIRTIO_ADDRESS),
            ),
            ecam=PCI_CONFIG,
            numa=self.numa,
            pic=self.irqchip.has_pic,
            fw_cfg=self.fw_cfg.ports.start,
        )

    def start(self) -> None:
        """Begin to pass on input and output."""
        self.serial.start()
        if self._console is not None:
            self._console.start(self.serial.loop)
            self.serial.loop.start()

    def reset(self) -> None:
        """Everything to its power-on state; no vCPU may run."""
        self.irqchip.reset()
        self.serial.reset()
        self.virtio.reset()
        for device in self.devices:
            device.reset()
        cpus = sum(slot.cpu is not None for slot in self._slots)
        self.rtc.set_cpu_count(cpus)
        self.fw_cfg.put(*cpu_count_item(cpus))

    def disconnect(self) -> None:
        """End what uses the VM by itself, before that is closed."""
        self.virtio.close()
        self.pm.close()
        self.rtc.close()

    def close(self) -> None:
        """End the rest of what devices do by themselves; the VM must be closed before."""
        self.serial.close()
