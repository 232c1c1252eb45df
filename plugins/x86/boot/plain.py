"""Images without a boot protocol: flat binaries and ELF executables."""

from __future__ import annotations

from pathlib import Path

from cpufw.errors import ImageError
from cpufw_x86.boot.cpu_start import CpuStart, EntryMode
from cpufw_x86.boot.elf import Elf
from cpufw_x86.boot.guest_image import GuestImage, image_name
from cpufw_x86.boot.layout import Environment, Layout, Segment
from cpufw_x86.memory_map import HIGH_MEMORY

# A boot sector's address by the IBM PC's convention; 1 MiB is the first byte above its low memory.
_FLAT_ADDRESS = {
    EntryMode.REAL: 0x7C00,
    EntryMode.PROTECTED: HIGH_MEMORY,
    EntryMode.LONG: HIGH_MEMORY,
}


class PlainImage(GuestImage):
    """What goes into memory, and the address and mode to begin in."""

    def __init__(
        self,
        path: Path,
        protocol: str,
        segments: tuple[Segment, ...],
        entry: int,
        mode: EntryMode,
    ) -> None:
        super().__init__(path, protocol)
        self.segments, self.entry, self.mode = segments, entry, mode

    def layout(self, _environment: Environment) -> Layout:
        """The image, and nothing else."""
        real = self.mode is EntryMode.REAL
        start = CpuStart(self.mode, self.entry, cs_base=self.entry & 0xF_0000 if real else 0)
        return Layout(self.segments, start)


def flat_image(
    path: Path, content: bytes, mode: EntryMode | None, address: int | None
) -> PlainImage:
    """A file that goes into memory as it is and begins with its first byte.

    `mode` defaults to real; `address` to 0x7c00 in real mode, else to 1 MiB.
    """
    mode = mode or EntryMode.REAL
    address = _FLAT_ADDRESS[mode] if address is None else address
    return PlainImage(
        path, "flat", (Segment.of(address, content, image_name(path)),), address, mode
    )


def elf_image(path: Path, elf: Elf, mode: EntryMode | None) -> PlainImage:
    """An executable; `mode` defaults to protected if it is 32-bit, to long if it is 64-bit.

    Raises `ImageError` for real mode.
    """
    if mode is EntryMode.REAL:
        raise ImageError(f"{image_name(path)} is ELF: it is entered in protected or long mode")
    mode = mode or (EntryMode.LONG if elf.wide else EntryMode.PROTECTED)
    return PlainImage(path, "elf", elf.segments, elf.entry, mode)
