"""The small port-I/O devices of the x86 machine. Pure Python: nothing here knows about KVM."""

from .acpi_pm import AcpiPm
from .bus import PortBus
from .cpu_hotplug import CPU_HOTPLUG_GPE, CpuHotplugBlock
from .debug_console import DebugConsole
from .exit_port import DebugExit, KeyboardReset, ResetControl
from .port_device import PortDevice

__all__ = [
    "CPU_HOTPLUG_GPE",
    "AcpiPm",
    "CpuHotplugBlock",
    "DebugConsole",
    "DebugExit",
    "KeyboardReset",
    "PortBus",
    "PortDevice",
    "ResetControl",
]
