"""What a boot protocol puts into memory, and the check that all of it fits."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from cpufw.errors import ImageError
from cpufw_x86.boot.cpu_start import CpuStart
from cpufw_x86.memory_map import HOLE_START, MIB, MemoryMap


class Environment(NamedTuple):
    """What a layout depends on: the memory, and where the RSDP is, with its content."""

    memory_map: MemoryMap
    rsdp_address: int | None = None
    rsdp: bytes = b""


class Segment(NamedTuple):
    """Bytes for guest-physical `address`, followed by zeros up to `size` bytes.

    `what` names it in error messages.
    """

    address: int
    data: bytes | memoryview
    size: int
    what: str

    @classmethod
    def of(cls, address: int, data: bytes | memoryview, what: str) -> Segment:
        """One without zeros."""
        return cls(address, data, len(data), what)

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.address + self.size


class Layout(NamedTuple):
    """All that goes into memory, and the state in which the boot CPU begins."""

    segments: tuple[Segment, ...]
    start: CpuStart

    def check(self, environment: Environment) -> None:
        """Raise `ImageError` unless each segment has RAM that nothing else needs."""
        memory_map = environment.memory_map
        with_acpi = environment.rsdp_address is not None
        for each in self.segments:
            if not memory_map.has_ram(each.address, each.size):
                raise _no_ram(each, memory_map)
            for place in memory_map.acpi_ranges() if with_acpi else ():
                if each.address < place.stop and each.end > place.start:
                    raise ImageError(
                        f"{each.what} covers {place.start:#x}-{place.stop - 1:#x}, where the ACPI "
                        "tables are; load it elsewhere or give the guest more memory"
                    )
        ordered = sorted((each for each in self.segments if each.size), key=lambda s: s.address)
        for first, second in pairwise(ordered):
            if first.end > second.address:
                raise _overlap(first, second)


def _no_ram(segment: Segment, memory_map: MemoryMap) -> ImageError:
    remedy = "load it elsewhere"
    if segment.end <= HOLE_START:
        remedy += f" or give the guest at least {memory_map.needed(segment.end)}M"
    return ImageError(
        f"{segment.what} needs {segment.size} bytes at {segment.address:#x}, which do not fit into "
        f"{memory_map.ram_size // MIB} MiB of RAM; {remedy}"
    )


def _overlap(first: Segment, second: Segment) -> ImageError:
    return ImageError(
        f"{first.what} needs {first.address:#x}-{first.end - 1:#x} and {second.what} needs "
        f"{second.address:#x}-{second.end - 1:#x}: these overlap, load one of them elsewhere"
    )
