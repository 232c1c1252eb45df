"""The initial RAM disk of Linux and PVH."""

from __future__ import annotations

from cpufw.errors import ImageError
from cpufw_x86.boot.files import read_file
from cpufw_x86.boot.layout import Segment
from cpufw_x86.memory_map import HOLE_START, MemoryMap, page_down, page_up


class Initrd:
    """The RAM disk in the file at `path`. Raises `ImageError` if that cannot be read."""

    def __init__(self, path: str) -> None:
        self.name = f"initrd {path}"
        self.content = read_file(path, "initrd")

    def place(self, kernel_end: int, address_max: int, memory_map: MemoryMap) -> Segment:
        """Put it as high as it goes above `kernel_end`; `address_max` is the last byte allowed.

        Raises `ImageError` if there is no room.
        """
        size = len(self.content)
        limit = min(address_max + 1, HOLE_START)
        address = page_down(min(limit, memory_map.usable_end) - size)
        if address < kernel_end:
            needed = page_up(kernel_end) + page_up(size)
            remedy = (
                f"give the guest at least {memory_map.needed(needed)}M"
                if needed <= limit
                else f"this kernel takes none that reaches beyond {limit - 1:#x}"
            )
            raise ImageError(
                f"{self.name} has {size} bytes, which do not fit between the kernel's end at "
                f"{kernel_end:#x} and {min(limit, memory_map.usable_end):#x}; {remedy}"
            )
        return Segment.of(address, self.content, self.name)
