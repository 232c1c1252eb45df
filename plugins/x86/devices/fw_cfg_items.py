"""What the PC tells by fw_cfg, and what its user adds with `--fw-cfg`.

Keys: QEMU's include/standard-headers/linux/qemu_fw_cfg.h.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from cpufw.errors import UsageError

RAM_SIZE, NO_GRAPHICS, CPU_COUNT, BOOT_MENU, MAX_CPUS = 0x03, 0x04, 0x05, 0x0E, 0x0F
KERNEL_SIZE, KERNEL_DATA = 0x08, 0x11
INITRD_SIZE, INITRD_DATA = 0x0B, 0x12
COMMAND_LINE_SIZE, COMMAND_LINE_DATA = 0x14, 0x15
SETUP_SIZE, SETUP_DATA = 0x17, 0x18
IRQ0_OVERRIDE = 0x8002

E820_FILE = "etc/e820"
FIRMWARE_CONSOLE_FILES = {
    "etc/sercon-port": (0x3F8).to_bytes(8, "little"),
    "etc/screen-and-debug": bytes(8),
}
"""Where SeaBIOS has its screen, on COM1, and that its debug console need not say the same again."""

RSDP_FILE = "etc/acpi/rsdp"

# The script that puts tables into memory: QEMU's hw/acpi/bios-linker-loader, entries of 128 bytes.
_LOADER_FILE = "etc/table-loader"
_LOADER_ALLOCATE = struct.Struct("<I56sIB63x")
_ALLOCATE, _F_SEGMENT = 1, 2
_RSDP_ALIGNMENT = 16  # ACPI 6.5, 5.2.5.1

_LARGEST_FILE = 1 << 30

# Linux/x86 boot protocol: the real-mode part of a bzImage is setup_sects + 1 sectors.
_SETUP_SECTORS, _BOOT_MAGIC, _SECTOR = 0x1F1, 0x202, 512
_DEFAULT_SETUP_SECTORS = 4


def machine_items(
    ram_size: int, cpus: int, apic_id_limit: int, *, irq0_override: bool
) -> dict[int, bytes]:
    """The items of a machine with `ram_size` bytes of RAM and `cpus` CPUs at its start.

    `apic_id_limit` is the highest APIC id that a CPU can have, plus 1. `irq0_override`: whether
    the timer's interrupt is input 2 of the IOAPIC.
    """
    return {
        RAM_SIZE: ram_size.to_bytes(8, "little"),
        NO_GRAPHICS: _u16(1),
        CPU_COUNT: _u16(cpus),
        BOOT_MENU: _u16(0),
        MAX_CPUS: _u16(apic_id_limit),
        IRQ0_OVERRIDE: _u32(int(irq0_override)),
    }


def cpu_count_item(cpus: int) -> tuple[int, bytes]:
    """The key and data of the item that counts the CPUs, for `FwCfg.put` after a hot-plug."""
    return CPU_COUNT, _u16(cpus)


def kernel_items(kernel: bytes, initrd: bytes, command_line: str) -> dict[int, bytes]:
    """The items by which firmware loads a kernel; a bzImage is given as its two parts."""
    setup = b""
    if kernel[_BOOT_MAGIC : _BOOT_MAGIC + 4] == b"HdrS":
        end = _SECTOR * ((kernel[_SETUP_SECTORS] or _DEFAULT_SETUP_SECTORS) + 1)
        setup, kernel = kernel[:end], kernel[end:]
    line = command_line.encode() + b"\0"
    items: dict[int, bytes] = {}
    for size_key, data_key, data in (
        (SETUP_SIZE, SETUP_DATA, setup),
        (KERNEL_SIZE, KERNEL_DATA, kernel),
        (INITRD_SIZE, INITRD_DATA, initrd),
        (COMMAND_LINE_SIZE, COMMAND_LINE_DATA, line),
    ):
        items |= {size_key: _u32(len(data)), data_key: data}
    return items


def acpi_loader_files(rsdp: bytes) -> dict[str, bytes]:
    """The files by which firmware takes over ACPI tables that are in memory already.

    They have it put `rsdp`, whose pointers are final, where operating systems look for it.
    """
    return {
        _LOADER_FILE: _LOADER_ALLOCATE.pack(
            _ALLOCATE, RSDP_FILE.encode(), _RSDP_ALIGNMENT, _F_SEGMENT
        ),
        RSDP_FILE: rsdp,
    }


def parse_fw_cfg(text: str) -> tuple[str, bytes]:
    """The name and data of `[name=]opt/x,file=PATH` or `[name=]opt/x,string=TEXT`.

    Two commas mean one, as in QEMU. Raises `UsageError` for anything else and for a file that
    cannot be read or has more than 1 GiB.
    """
    name, *sources = (part.replace(",,", ",") for part in re.split(r"(?<!,),(?!,)", text))
    name = name.removeprefix("name=")
    kind, equals, value = sources[0].partition("=") if len(sources) == 1 else ("", "", "")
    if not name or not equals or kind not in ("file", "string"):
        raise UsageError(
            f"fw_cfg item '{text}' is not valid, expected name=opt/NAME,file=PATH or "
            "name=opt/NAME,string=TEXT"
        )
    return name, value.encode() if kind == "string" else _contents(Path(value), name)


def _contents(path: Path, name: str) -> bytes:
    try:
        if not path.is_file():
            raise UsageError(f"fw_cfg item {name}: {path} is not a file")
        if path.stat().st_size > _LARGEST_FILE:
            raise UsageError(f"fw_cfg item {name}: {path} has more than {_LARGEST_FILE >> 30} GiB")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"fw_cfg item {name}: cannot read {path}: {error.strerror or error}"
        ) from error


def _u16(value: int) -> bytes:
    return min(value, 0xFFFF).to_bytes(2, "little")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
