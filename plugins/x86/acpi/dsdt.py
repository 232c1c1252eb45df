"""The DSDT: the devices that a guest cannot find by itself, and what they take."""

from __future__ import annotations

from collections.abc import Sequence

from cpufw_x86.acpi.aml import Term, device, eisa_id, named, package, scope, string
from cpufw_x86.acpi.config import AcpiConfig
from cpufw_x86.acpi.cpus import processors
from cpufw_x86.acpi.resources import (
    bus_numbers,
    interrupt,
    irq,
    memory,
    memory_window,
    port_window,
    ports,
    template,
)
from cpufw_x86.acpi.tables import table
from cpufw_x86.devices.acpi_pm import PM_BASE, PM_BYTES, SLEEP_TYPE_S5
from cpufw_x86.devices.cpu_hotplug import CPU_HOTPLUG_PORT

_REVISION = 2  # numbers have 64 bits
_CONFIG_PORTS = range(0xCF8, 0xD00)
_HOTPLUG_PORTS = range(CPU_HOTPLUG_PORT, CPU_HOTPLUG_PORT + 12)
_PORT_LIMIT = 0x1_0000
_FW_CFG_PORTS = 12


def dsdt(config: AcpiConfig) -> bytes:
    r"""The table: `\_SB` with the machine's devices, `\_GPE`, and the sleep type of `\_S5`."""
    isa = _isa_devices(config)
    if config.pci:  # the bridge's window has all ports, so what takes ports is behind it
        isa = [_host_bridge(config, isa)]
    virtio = [_virtio(config, unit) for unit in range(len(config.virtio))]
    devices = scope(r"\_SB", *isa, *virtio)
    soft_off = named(r"\_S5", package(SLEEP_TYPE_S5, 0, 0, 0))
    return table(b"DSDT", _REVISION, devices + processors(config.cpus) + soft_off)


def _device(name: str, hid: str, *resources: bytes, uid: int | None = None) -> bytes:
    """A device with an id, resources, and a number where there are several of its kind."""
    compressed = len(hid) == len("PNP0000")
    terms: list[Term] = [named("_HID", eisa_id(hid) if compressed else string(hid))]
    if uid is not None:
        terms.append(named("_UID", uid))
    terms.append(named("_CRS", template(*resources)))
    return device(name, *terms)


def _isa_devices(config: AcpiConfig) -> list[bytes]:
    """Devices with ports and interrupts of the ISA bus."""
    reserved: Sequence[range] = (
        range(PM_BASE, PM_BASE + PM_BYTES),
        _HOTPLUG_PORTS,
        *config.reserved_ports,
    )
    devices = [_device("SYSR", "PNP0C02", *map(ports, reserved))]
    if config.rtc:
        devices.append(_device("RTC", "PNP0B00", ports(range(0x70, 0x72)), irq(8)))
    if config.i8042:
        keyboard = ports(range(0x60, 0x61)), ports(range(0x64, 0x65)), irq(1)
        devices.append(_device("KBD", "PNP0303", *keyboard))
    for number, (port, line) in enumerate(config.uarts, 1):
        resources = ports(range(port, port + 8)), irq(line)
        devices.append(_device(f"COM{number}", "PNP0501", *resources, uid=number))
    if config.fw_cfg is not None:
        area = range(config.fw_cfg, config.fw_cfg + _FW_CFG_PORTS)
        devices.append(_device("FWCF", "QEMU0002", ports(area)))
    return devices


def _host_bridge(config: AcpiConfig, isa: Sequence[bytes]) -> bytes:
    buses = len(config.ecam) >> 20 if config.ecam else 256
    resources = (
        bus_numbers(range(buses)),
        ports(_CONFIG_PORTS),
        port_window(range(_CONFIG_PORTS.start)),
        port_window(range(_CONFIG_PORTS.stop, _PORT_LIMIT)),
        *map(memory_window, config.pci_windows),
    )
    return device(
        "PCI0",
        named("_HID", eisa_id("PNP0A03")),
        named("_UID", 0),
        *([named("_PXM", 0)] if config.numa else []),
        named("_CRS", template(*resources)),
        *isa,
    )


def _virtio(config: AcpiConfig, unit: int) -> bytes:
    address, size, gsi = config.virtio[unit]
    resources = memory(address, size), interrupt(gsi)
    return _device(f"VR{unit:02X}", "LNRO0005", *resources, uid=unit)
