"""What every boot protocol makes of a file: a guest image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from cpufw.errors import ImageError
from cpufw_x86.boot.cpu_start import CpuStart
from cpufw_x86.boot.layout import Environment, Layout, Segment
from cpufw_x86.kvm import X86VCPU
from cpufw_x86.memory import GuestRam
from cpufw_x86.memory_map import BOOT_TABLES, RSDP_SIZE, MemoryMap


class GuestImage(ABC):
    """An image that `load_guest` has read, with all that its boot protocol takes along.

    `protocol` is the name of that. `firmware_size` is not 0 for firmware: it makes its own tables,
    so no ACPI tables are put into memory for it.
    """

    firmware_size = 0

    def __init__(self, path: Path, protocol: str) -> None:
        self.path, self.protocol = path, protocol
        self._start: CpuStart | None = None

    @property
    def name(self) -> str:
        """What error messages call it."""
        return image_name(self.path)

    @abstractmethod
    def layout(self, environment: Environment) -> Layout:
        """What goes where in memory, and how the boot CPU begins. Raises `ImageError`."""

    def place(self, ram: GuestRam, memory_map: MemoryMap, rsdp: int | None) -> None:
        """Write all that the guest finds at its start into `ram`; again after a reset.

        `rsdp` is the address of the ACPI root pointer, None if there is none; the ACPI tables must
        be there already. Raises `ImageError`, with nothing written, if it does not fit.
        """
        copy = ram.read(rsdp, RSDP_SIZE) if rsdp is not None else b""
        environment = Environment(memory_map, rsdp, copy)
        layout = self.layout(environment)
        start = layout.start
        tables = start.tables()
        if tables:
            what = f"the set-up of {start.mode.value} mode"
            segment = Segment(BOOT_TABLES.start, tables, len(BOOT_TABLES), what)
            layout = Layout((*layout.segments, segment), start)
        layout.check(environment)
        if start.address >= start.reach:
            raise ImageError(
                f"{self.name} begins at {start.address:#x}, beyond the "
                f"{start.reach >> 20} MiB that {start.mode.value} mode reaches here"
            )
        for each in layout.segments:
            ram.write(each.address, each.data)
            ram.fill_zero(each.address + len(each.data), each.size - len(each.data))
        self._start = start

    def enter(self, vcpu: X86VCPU) -> None:
        """Set the registers of the boot CPU, whatever they were; `place` comes first."""
        if self._start is None:
            raise ImageError(f"{self.name} has not been put into memory")
        self._start.enter(vcpu)


def image_name(path: Path) -> str:
    """What error messages call the image at `path`."""
    return f"guest image {path}"
