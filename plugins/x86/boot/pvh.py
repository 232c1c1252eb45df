"""The PVH boot protocol of Xen, which QEMU, Firecracker and Cloud Hypervisor speak as well.

Sources: Xen, docs/misc/pvh.pandoc ("x86/HVM direct boot ABI") and
xen/include/public/arch-x86/hvm/start_info.h; xen/include/public/elfnote.h.
"""

from __future__ import annotations

import struct
from pathlib import Path

from cpufw.errors import ImageError
from cpufw_x86.boot.command_line import LONGEST_COMMAND_LINE, command_line
from cpufw_x86.boot.cpu_start import CpuStart, EntryMode
from cpufw_x86.boot.elf import Elf
from cpufw_x86.boot.guest_image import GuestImage
from cpufw_x86.boot.initrd import Initrd
from cpufw_x86.boot.layout import Environment, Layout, Segment
from cpufw_x86.boot.linux import is_linux
from cpufw_x86.boot.linux_header import VMLINUX_CMDLINE_SIZE
from cpufw_x86.memory_map import BOOT_INFO, COMMAND_LINE, HOLE_START

_XEN_ELFNOTE_PHYS32_ENTRY = 18
_MAGIC, _VERSION = 0x336E_C578, 1
# struct hvm_start_info, hvm_modlist_entry and hvm_memmap_table_entry.
_START_INFO = struct.Struct("<IIIIQQQQII")
_MODULE = struct.Struct("<QQQQ")
_MEMORY_RANGE = struct.Struct("<QQII")


def pvh_entry(elf: Elf) -> int | None:
    """The 32-bit physical address of the PVH entry, None if the executable has none."""
    for note in elf.notes:
        if note.owner == b"Xen" and note.type == _XEN_ELFNOTE_PHYS32_ENTRY:
            return int.from_bytes(note.description[:8], "little")
    return None


class PvhImage(GuestImage):
    """A kernel with a PVH entry, its command line and one module, the initrd."""

    def __init__(self, path: Path, elf: Elf, append: str, initrd: Initrd | None) -> None:
        super().__init__(path, "pvh")
        entry = pvh_entry(elf)
        if entry is None:
            raise ImageError(
                f"{self.name} has no PVH entry: its ELF notes have no XEN_ELFNOTE_PHYS32_ENTRY"
            )
        if not any(each.address <= entry < each.end for each in elf.segments):
            raise ImageError(f"{self.name} has its PVH entry at {entry:#x}, where it loads nothing")
        self._elf, self._entry, self._initrd = elf, entry, initrd
        longest = VMLINUX_CMDLINE_SIZE if is_linux(elf) else LONGEST_COMMAND_LINE
        self._command_line = command_line(append, self.name, longest)

    def layout(self, environment: Environment) -> Layout:
        """The kernel where it says, the initrd at the top, ebx with hvm_start_info's address."""
        memory_map = environment.memory_map
        segments = [*self._elf.segments, self._command_line]
        modules = b""
        if self._initrd is not None:
            disk = self._initrd.place(self._elf.end, HOLE_START - 1, memory_map)
            segments.append(disk)
            modules = _MODULE.pack(disk.address, disk.size, 0, 0)
        ranges = memory_map.e820()
        module_list = BOOT_INFO.start + _START_INFO.size
        memory_ranges = module_list + len(modules)
        info = _START_INFO.pack(
            _MAGIC,
            _VERSION,
            0,
            len(modules) // _MODULE.size,
            module_list if modules else 0,
            COMMAND_LINE.start,
            environment.rsdp_address or 0,
            memory_ranges,
            len(ranges),
            0,
        )
        info += modules
        info += b"".join(_MEMORY_RANGE.pack(r.address, r.size, r.type, 0) for r in ranges)
        segments.append(Segment.of(BOOT_INFO.start, info, "the PVH start info"))
        start = CpuStart(EntryMode.PROTECTED, self._entry, {"rbx": BOOT_INFO.start})
        return Layout(tuple(segments), start)
