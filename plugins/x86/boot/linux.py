"""Linux kernels: bzImage and ELF vmlinux, through the 64-bit or the 32-bit entry.

Sources: Linux, Documentation/x86/boot.rst, "32-bit Boot Protocol" and "64-bit Boot Protocol".
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cpufw.errors import ImageError
from cpufw_x86.boot.command_line import command_line
from cpufw_x86.boot.cpu_start import CpuStart, EntryMode
from cpufw_x86.boot.elf import Elf
from cpufw_x86.boot.guest_image import GuestImage
from cpufw_x86.boot.initrd import Initrd
from cpufw_x86.boot.layout import Environment, Layout, Segment
from cpufw_x86.boot.linux_header import (
    VMLINUX_CMDLINE_SIZE,
    VMLINUX_INITRD_ADDR_MAX,
    ZERO_PAGE,
    parse_setup_header,
    vmlinux_header,
    zero_page,
)
from cpufw_x86.memory_map import HOLE_START, MIB

# boot.rst: the 64-bit entry is that far from the beginning of the kernel.
_ENTRY_64 = 0x200


class LinuxKernel(NamedTuple):
    """A kernel ready for its entry: `end` is the end of the memory that it needs for a start."""

    segments: tuple[Segment, ...]
    load_address: int
    end: int
    entry: int
    mode: EntryMode
    header: bytes
    initrd_addr_max: int
    cmdline_size: int


def is_linux(elf: Elf) -> bool:
    """Whether an executable is a Linux kernel: since 2.6 its build leaves notes of that owner."""
    return any(note.owner == b"Linux" for note in elf.notes)


def bzimage(content: bytes, name: str, mode: EntryMode | None) -> LinuxKernel:
    """A kernel that unpacks itself; `mode` defaults to its 64-bit entry where it has one.

    Raises `ImageError`.
    """
    header = parse_setup_header(content, name)
    if mode is EntryMode.LONG and not header.has_64bit_entry:
        raise ImageError(f"{name} is a Linux kernel without a 64-bit entry: boot it as linux32")
    if mode is None:
        mode = EntryMode.LONG if header.has_64bit_entry else EntryMode.PROTECTED
    load = header.load_address
    code = memoryview(content)[header.code]
    return LinuxKernel(
        segments=(Segment.of(load, code, name),),
        load_address=load,
        end=header.end,
        entry=load + (_ENTRY_64 if mode is EntryMode.LONG else 0),
        mode=mode,
        header=header.content,
        initrd_addr_max=header.initrd_addr_max,
        cmdline_size=header.cmdline_size,
    )


def vmlinux(elf: Elf, name: str, mode: EntryMode | None) -> LinuxKernel:
    """A kernel as it was linked, whose entry expects the mode of its ELF class.

    Raises `ImageError`.
    """
    own = EntryMode.LONG if elf.wide else EntryMode.PROTECTED
    if mode not in (None, own):
        raise ImageError(
            f"{name} is a {64 if elf.wide else 32}-bit vmlinux: boot it as "
            f"{'linux' if elf.wide else 'linux32'}, or boot its bzImage"
        )
    return LinuxKernel(
        segments=elf.segments,
        load_address=min(each.address for each in elf.segments),
        end=elf.end,
        entry=elf.entry,
        mode=own,
        header=vmlinux_header(),
        initrd_addr_max=VMLINUX_INITRD_ADDR_MAX,
        cmdline_size=VMLINUX_CMDLINE_SIZE,
    )


class LinuxImage(GuestImage):
    """A Linux kernel with its command line and initrd."""

    def __init__(self, path: Path, kernel: LinuxKernel, append: str, initrd: Initrd | None) -> None:
        super().__init__(path, "linux" if kernel.mode is EntryMode.LONG else "linux32")
        self.kernel, self.initrd = kernel, initrd
        self._command_line = command_line(append, self.name, kernel.cmdline_size)

    def layout(self, environment: Environment) -> Layout:
        """The kernel where it says, the initrd at the top, rsi with the zero page's address."""
        kernel, memory_map = self.kernel, environment.memory_map
        if kernel.end > memory_map.usable_end:
            remedy = (
                f"give it at least {memory_map.needed(kernel.end)}M, and more to run well"
                if kernel.end <= HOLE_START
                else "no guest has memory there"
            )
            raise ImageError(
                f"{self.name} needs memory up to {kernel.end:#x}, but the guest has "
                f"{memory_map.ram_size // MIB} MiB; {remedy}"
            )
        disk = None
        if self.initrd is not None:
            disk = self.initrd.place(kernel.end, kernel.initrd_addr_max, memory_map)
        page = zero_page(kernel.header, environment, disk, kernel.load_address)
        segments = (*kernel.segments, page, self._command_line, *([disk] if disk else []))
        return Layout(segments, CpuStart(kernel.mode, kernel.entry, {"rsi": ZERO_PAGE}))
