"""What a guest finds in memory when it starts, and how its boot CPU begins."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from cpufw.errors import ImageError, UsageError
from cpufw_x86.acpi import AcpiBuilder, AcpiTables
from cpufw_x86.boot import EntryMode, GuestImage, load_guest
from cpufw_x86.boot.files import read_file
from cpufw_x86.devices import (
    E820_FILE,
    FIRMWARE_CONSOLE_FILES,
    acpi_loader_files,
    kernel_items,
)
from cpufw_x86.memory_map import MIB, MemoryMap, pack_e820

if TYPE_CHECKING:
    from collections.abc import Callable

    from cpufw_x86.acpi import AcpiConfig
    from cpufw_x86.kvm import X86VCPU
    from cpufw_x86.memory import GuestRam
    from cpufw_x86.pc_options import PcOptions

_LEAST_WITH_FIRMWARE = 16 * MIB


class GuestStart:
    """The image that `options` name, with ACPI tables of what `describe` returns at the time.

    Raises `ImageError` for an image that cannot be read or does not fit into `ram`.
    """

    def __init__(
        self, options: PcOptions, ram: GuestRam, describe: Callable[[], AcpiConfig]
    ) -> None:
        self._ram, self._describe = ram, describe
        self.image = None
        # A saved machine goes on also where the files that it began from are gone.
        with suppress(ImageError) if options.incoming else nullcontext():
            self.image = _image(options)
        self._builder = AcpiBuilder(describe())
        firmware = self.image.firmware_size if self.image is not None else 0
        self.is_firmware = firmware > 0
        # A flat image has all of low memory for itself.
        self.has_acpi = self.image is not None and self.image.protocol != "flat"
        if self.is_firmware and ram.size < _LEAST_WITH_FIRMWARE:
            self.has_acpi = False  # they would be where the firmware is
        self.memory_map = MemoryMap(
            ram.size,
            acpi_size=self._builder.size if self.has_acpi else 0,
            firmware_size=firmware,
        )
        if not options.incoming:
            self.place()

    def place(self) -> None:
        """Write the image and what its boot protocol passes into memory."""
        if self.image is not None:
            has_rsdp = self.has_acpi and not self.is_firmware
            rsdp = self.memory_map.rsdp_address if has_rsdp else None
            self.image.place(self._ram, self.memory_map, rsdp)

    def _acpi(self) -> AcpiTables:
        return self._builder.at(self.memory_map.acpi_address, self._describe().cpus)

    def _place_acpi(self) -> None:
        if self.has_acpi:
            acpi = self._acpi()
            self._ram.write(self.memory_map.acpi_address, acpi.tables)
            if not self.is_firmware:  # which puts it where it likes
                self._ram.write(self.memory_map.rsdp_address, acpi.rsdp)

    def fw_cfg_files(self) -> dict[str, bytes]:
        """What fw_cfg has to offer about this start."""
        files = {E820_FILE: pack_e820(self.memory_map.firmware_ranges())}
        if self.is_firmware:
            files |= FIRMWARE_CONSOLE_FILES
            if self.has_acpi:
                files |= acpi_loader_files(self._acpi().rsdp)
        return files

    def enter(self, vcpu: X86VCPU) -> None:
        """Write the ACPI tables, which name the CPUs plugged now, and set the boot CPU's registers.

        Raises `UsageError` if there is no image.
        """
        if self.image is None:
            raise UsageError("there is nothing to run: the machine was made without a kernel")
        self._place_acpi()
        self.image.enter(vcpu)


def kernel_for_firmware(options: PcOptions) -> dict[int, bytes]:
    """The fw_cfg items by which firmware loads the kernel that is given beside it.

    Raises `ImageError` for a file that cannot be read.
    """
    if options.kernel is None or options.firmware is None:
        return {}
    with suppress(ImageError) if options.incoming else nullcontext():
        disk = read_file(options.initrd, "initrd") if options.initrd is not None else b""
        return kernel_items(read_file(options.kernel, "guest image"), disk, options.append)
    return {}


def _image(options: PcOptions) -> GuestImage | None:
    """The firmware, which finds a kernel by fw_cfg, or else the kernel."""
    is_firmware = options.firmware is not None
    path = options.firmware if is_firmware else options.kernel
    if path is None:
        return None
    takes_files = options.kernel is None or not is_firmware
    try:
        mode = EntryMode(options.entry_mode) if options.entry_mode is not None else None
    except ValueError:
        modes = ", ".join(each.value for each in EntryMode)
        raise UsageError(f"entry mode '{options.entry_mode}' is not one of {modes}") from None
    return load_guest(
        path,
        protocol="firmware" if is_firmware else options.protocol,
        initrd=options.initrd if takes_files else None,
        append=options.append if takes_files else "",
        entry_mode=mode,
        load_address=options.load_address,
    )
