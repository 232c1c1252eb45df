"""The port-I/O and MMIO devices of the x86 machine. Pure Python: nothing here knows about KVM."""

from .acpi_pm import AcpiPm
from .bus import PortBus
from .cmos import cmos_contents
from .cpu_hotplug import CPU_HOTPLUG_GPE, CpuHotplugBlock
from .debug_console import BOCHS_PORT, SEABIOS_PORT, DebugConsole
from .exit_port import DebugExit, ResetControl
from .fw_cfg import FwCfg
from .fw_cfg_items import (
    E820_FILE,
    FIRMWARE_CONSOLE_FILES,
    acpi_loader_files,
    cpu_count_item,
    kernel_items,
    machine_items,
    parse_fw_cfg,
)
from .i8042 import I8042, KEYBOARD_IRQ
from .mmio_bus import MmioBus
from .pci import PciEcam, PciHost
from .port92 import Port92
from .port_device import MmioDevice, PortDevice
from .pvpanic import PVPANIC_PORT, Pvpanic
from .rtc import RTC_IRQ, Rtc
from .testdev import Testdev, TestdevMemory

__all__ = [
    "BOCHS_PORT",
    "CPU_HOTPLUG_GPE",
    "E820_FILE",
    "FIRMWARE_CONSOLE_FILES",
    "I8042",
    "KEYBOARD_IRQ",
    "PVPANIC_PORT",
    "RTC_IRQ",
    "SEABIOS_PORT",
    "AcpiPm",
    "CpuHotplugBlock",
    "DebugConsole",
    "DebugExit",
    "FwCfg",
    "MmioBus",
    "MmioDevice",
    "PciEcam",
    "PciHost",
    "Port92",
    "PortBus",
    "PortDevice",
    "Pvpanic",
    "ResetControl",
    "Rtc",
    "Testdev",
    "TestdevMemory",
    "acpi_loader_files",
    "cmos_contents",
    "cpu_count_item",
    "kernel_items",
    "machine_items",
    "parse_fw_cfg",
]
