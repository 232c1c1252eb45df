"""The modules that Multiboot puts into memory beside the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cpufw.errors import ImageError, UsageError
from cpufw_x86.boot.files import read_file
from cpufw_x86.boot.layout import Segment
from cpufw_x86.memory_map import HIGH_MEMORY, MIB, MemoryMap, page_up


class Module(NamedTuple):
    """A file that was read; `line` is its path and, after a space, its arguments."""

    line: str
    content: bytes

    @property
    def path(self) -> str:
        """The file's path."""
        return self.line.partition(" ")[0]

    @property
    def arguments(self) -> str:
        """What follows the path."""
        return self.line.partition(" ")[2]


def split_modules(text: str) -> list[str]:
    """`"a arg,b arg"` as QEMU takes it for `-initrd`: `,,` is a comma within a module."""
    comma = "\0"  # no path has one
    return [part.replace(comma, ",") for part in text.replace(",,", comma).split(",")]


def read_modules(lines: Sequence[str]) -> tuple[Module, ...]:
    """Each line is a file's path and, after the first space, its arguments.

    Raises `UsageError` for an empty line, `ImageError` for a file that cannot be read.
    """
    modules = []
    for line in lines:
        path = line.strip().partition(" ")[0]
        if not path:
            raise UsageError("a module has no file name; expected FILE or FILE ARGUMENTS")
        modules.append(Module(line.strip(), read_file(path, "module")))
    return tuple(modules)


def place_modules(
    modules: Sequence[Module], after: int, memory_map: MemoryMap
) -> tuple[Segment, ...]:
    """Put them on pages of their own, in order, from `after` or 1 MiB on.

    Raises `ImageError` if there is no room.
    """
    segments = []
    address = page_up(max(after, HIGH_MEMORY))
    for module in modules:
        segment = Segment.of(address, module.content, f"module {module.path}")
        if segment.end > memory_map.usable_end:
            raise ImageError(
                f"{segment.what} has {segment.size} bytes, which do not fit between "
                f"{address:#x} and the end of the guest's {memory_map.ram_size // MIB} MiB; "
                f"give it at least {memory_map.needed(segment.end)}M"
            )
        segments.append(segment)
        address = page_up(segment.end)
    return tuple(segments)
