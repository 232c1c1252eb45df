"""A firmware image: read-only memory at the top of 4 GiB, begun as a processor does after reset."""

from __future__ import annotations

from pathlib import Path

from cpufw.errors import ImageError
from cpufw_x86.boot.cpu_start import CpuStart, EntryMode
from cpufw_x86.boot.guest_image import GuestImage
from cpufw_x86.boot.layout import Environment, Layout, Segment
from cpufw_x86.memory import GuestRam
from cpufw_x86.memory_map import HIGH_MEMORY, KIB, LARGEST_FIRMWARE, MIB, MemoryMap

_UNIT = 64 * KIB
# A PC shows the last 128 KiB of its firmware below 1 MiB too, and BIOS code asks the chipset for
# RAM there to copy more into. Here it is RAM with all that can be of use, known chipset or not.
_SHADOW = 256 * KIB
# Intel SDM vol. 3A, 10.1.4: the first instruction, and the base that CS begins with.
_RESET_VECTOR, _RESET_CS_BASE = 0xFFFF_FFF0, 0xFFFF_0000


class FirmwareImage(GuestImage):
    """A file of 64 KiB to 16 MiB, a multiple of 64 KiB. Raises `ImageError` for another size."""

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(path, "firmware")
        if len(content) % _UNIT or len(content) > LARGEST_FIRMWARE:
            raise ImageError(
                f"{self.name} has {len(content)} bytes; firmware has a multiple of 64 KiB, at most "
                f"{LARGEST_FIRMWARE // MIB} MiB"
            )
        self.firmware_size = len(content)
        self._content = content

    def layout(self, _environment: Environment) -> Layout:
        """The copy below 1 MiB; the ROM is not RAM."""
        copy = memoryview(self._content)[-_SHADOW:]
        segment = Segment.of(HIGH_MEMORY - len(copy), copy, self.name)
        start = CpuStart(EntryMode.REAL, _RESET_VECTOR, cs_base=_RESET_CS_BASE)
        return Layout((segment,), start)

    def place(self, ram: GuestRam, memory_map: MemoryMap, rsdp: int | None) -> None:
        """The ROM, and its copy below 1 MiB."""
        super().place(ram, memory_map, rsdp)
        ram.set_rom(self._content)
