"""Multiboot, as GRUB and QEMU speak it, and its second version.

Sources: Multiboot Specification 0.6.96, 3.2 and 3.3; Multiboot2 Specification 2.0, 3.3 and 3.6.
"""

from __future__ import annotations

import os
import struct
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from cpufw.errors import ImageError
from cpufw_x86.boot.command_line import command_line
from cpufw_x86.boot.cpu_start import CpuStart, EntryMode
from cpufw_x86.boot.guest_image import GuestImage
from cpufw_x86.boot.layout import Environment, Layout, Segment
from cpufw_x86.boot.modules import Module, place_modules
from cpufw_x86.boot.multiboot_header import MultibootKernel, parse_multiboot, parse_multiboot2
from cpufw_x86.boot.sections import place_sections
from cpufw_x86.memory_map import (
    BOOT_INFO,
    COMMAND_LINE,
    HIGH_MEMORY,
    KIB,
    LOW_MEMORY_END,
    MemoryMap,
)

_LOADER_NAME = b"cpufw\0"

# Multiboot 3.2 and 3.3.
_EAX_1 = 0x2BADB002
_HAS_MEMORY, _HAS_COMMAND_LINE, _HAS_MODULES = 1 << 0, 1 << 2, 1 << 3
_HAS_MEMORY_MAP, _HAS_LOADER_NAME = 1 << 6, 1 << 9
_INFO_1 = struct.Struct("<IIIIIII16xIIIIIII")  # up to apm_table; syms is empty
_INFO_1_SIZE = 120
_MODULE_1 = struct.Struct("<IIII")
_RANGE_1 = struct.Struct("<IQQI")  # the first field counts the bytes after it

# Multiboot2 3.3 and 3.6.
_EAX_2 = 0x36D76289
_TAG_END, _TAG_COMMAND_LINE, _TAG_LOADER_NAME, _TAG_MODULE, _TAG_MEMORY = 0, 1, 2, 3, 4
_TAG_MEMORY_MAP, _TAG_SECTIONS, _TAG_OLD_RSDP, _TAG_NEW_RSDP = 6, 9, 14, 15
_RANGE_2 = struct.Struct("<QQII")
_OLD_RSDP_SIZE = 20  # ACPI 6.5, table 5.3: up to RsdtAddress


class MultibootImage(GuestImage):
    """What both versions share: a kernel, modules after it, information about them in ebx."""

    eax: int

    def __init__(
        self,
        path: Path,
        protocol: str,
        kernel: MultibootKernel,
        append: str,
        modules: Sequence[Module],
    ) -> None:
        super().__init__(path, protocol)
        self.kernel, self.append, self.modules = kernel, append, tuple(modules)

    @abstractmethod
    def _information(
        self, environment: Environment, modules: Sequence[Segment]
    ) -> tuple[bytes, tuple[Segment, ...]]:
        """The structure for BOOT_INFO, and what else it refers to."""

    def layout(self, environment: Environment) -> Layout:
        """The kernel where it says, the modules after it, 32-bit protected mode."""
        modules = place_modules(self.modules, self.kernel.end, environment.memory_map)
        data, more = self._information(environment, modules)
        if len(data) > len(BOOT_INFO):
            raise ImageError(
                f"{self.name} cannot be told of {len(self.modules)} modules: names and arguments "
                f"of all have to fit into {len(BOOT_INFO) // KIB} KiB"
            )
        information = Segment.of(BOOT_INFO.start, data, "the Multiboot information")
        segments = (*self.kernel.segments, *modules, information, *more)
        registers = {"rax": self.eax, "rbx": BOOT_INFO.start}
        return Layout(segments, CpuStart(EntryMode.PROTECTED, self.kernel.entry, registers))


class Multiboot1Image(MultibootImage):
    """A kernel with a Multiboot header; its command line begins with its own path."""

    eax = _EAX_1

    def __init__(self, path: Path, content: bytes, append: str, modules: Sequence[Module]) -> None:
        kernel = parse_multiboot(content, f"guest image {path}")
        super().__init__(path, "multiboot", kernel, append, modules)
        self._command_line = command_line(f"{path} {append}".rstrip(" "), self.name)

    def _information(
        self, environment: Environment, modules: Sequence[Segment]
    ) -> tuple[bytes, tuple[Segment, ...]]:
        ranges = b"".join(
            _RANGE_1.pack(_RANGE_1.size - 4, r.address, r.size, r.type)
            for r in environment.memory_map.e820()
        )
        ranges_at = BOOT_INFO.start + _INFO_1_SIZE
        modules_at = ranges_at + len(ranges)
        strings_at = modules_at + _MODULE_1.size * len(modules)
        strings, table = _LOADER_NAME, b""
        for module, segment in zip(self.modules, modules, strict=True):
            table += _MODULE_1.pack(segment.address, segment.end, strings_at + len(strings), 0)
            strings += os.fsencode(module.line) + b"\0"
        flags = _HAS_MEMORY | _HAS_COMMAND_LINE | _HAS_MEMORY_MAP | _HAS_LOADER_NAME
        info = _INFO_1.pack(
            flags | (_HAS_MODULES if modules else 0),
            *_lower_and_upper(environment.memory_map),
            0,
            COMMAND_LINE.start,
            len(modules),
            modules_at if modules else 0,
            len(ranges),
            ranges_at,
            0,
            0,
            0,
            strings_at,
            0,
        )
        data = info.ljust(_INFO_1_SIZE, b"\0") + ranges + table + strings
        return data, (self._command_line,)


class Multiboot2Image(MultibootImage):
    """A kernel with a Multiboot2 header; its command line is what was appended, as GRUB's."""

    eax = _EAX_2

    def __init__(self, path: Path, content: bytes, append: str, modules: Sequence[Module]) -> None:
        kernel = parse_multiboot2(content, f"guest image {path}")
        super().__init__(path, "multiboot2", kernel, append, modules)
        self._content = content
        command_line(append, self.name)

    def _information(
        self, environment: Environment, modules: Sequence[Segment]
    ) -> tuple[bytes, tuple[Segment, ...]]:
        tags = _tag(_TAG_COMMAND_LINE, os.fsencode(self.append) + b"\0")
        tags += _tag(_TAG_LOADER_NAME, _LOADER_NAME)
        for module, segment in zip(self.modules, modules, strict=True):
            place = struct.pack("<II", segment.address, segment.end)
            tags += _tag(_TAG_MODULE, place + os.fsencode(module.arguments) + b"\0")
        tags += _tag(_TAG_MEMORY, struct.pack("<II", *_lower_and_upper(environment.memory_map)))
        ranges = b"".join(
            _RANGE_2.pack(r.address, r.size, r.type, 0) for r in environment.memory_map.e820()
        )
        tags += _tag(_TAG_MEMORY_MAP, struct.pack("<II", _RANGE_2.size, 0) + ranges)
        symbols: tuple[Segment, ...] = ()
        if self.kernel.sections is not None:
            after = max([self.kernel.end, *(each.end for each in modules)])
            table, symbols = place_sections(self._content, self.kernel, after, self.name)
            tags += _tag(_TAG_SECTIONS, table) if table else b""
        rsdp = environment.rsdp
        if rsdp:
            tags += _tag(_TAG_OLD_RSDP, rsdp[:_OLD_RSDP_SIZE]) + _tag(_TAG_NEW_RSDP, rsdp)
        tags += _tag(_TAG_END, b"")
        return struct.pack("<II", 8 + len(tags), 0) + tags, symbols


def _tag(kind: int, body: bytes) -> bytes:
    tag = struct.pack("<II", kind, 8 + len(body)) + body
    return tag + bytes(-len(tag) % 8)


def _lower_and_upper(memory_map: MemoryMap) -> tuple[int, int]:
    """KiB of memory from 0 and from 1 MiB on (Multiboot 3.3, `mem_lower` and `mem_upper`)."""
    return LOW_MEMORY_END // KIB, (memory_map.usable_end - HIGH_MEMORY) // KIB
