"""A PC's RAM: below the 32-bit hole and, what does not fit there, above 4 GiB."""

from __future__ import annotations

from cpufw.errors import AcceleratorError, ImageError, KvmError, UsageError
from cpufw.kvm import GuestMemory
from cpufw_x86.kvm import X86VM

# Devices and the APICs live from 3 GiB to 4 GiB, as on QEMU's pc.
HOLE_START, HOLE_END = 0xC000_0000, 0x1_0000_0000
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PAGE = 0x1000


def parse_size(text: str | int) -> int:
    """Bytes: `"128M"`, `"2G"`, a number alone counts MiB as in QEMU. Raises `UsageError`."""
    if isinstance(text, int):
        return text
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "M")
    if not (number.isascii() and number.isdigit()) or unit not in _UNITS:
        raise UsageError(f"memory size '{text}' is not valid, expected for example 128M or 2G")
    return int(number) * _UNITS[unit]


def check_addressable(size: int, bits: int) -> None:
    """Raise `UsageError` if RAM of `size` bytes has addresses of more than `bits` bits."""
    end = size if size <= HOLE_START else size - HOLE_START + HOLE_END
    if end > 1 << bits:
        raise UsageError(
            f"memory of {size >> 20} MiB ends at {end:#x}, beyond the {bits} physical address bits "
            "of the CPU; give it more phys-bits or the guest less memory"
        )


class GuestRam:
    """`size` bytes of RAM in a VM's memory slots.

    Raises `UsageError` for a size it cannot have, `AcceleratorError` if the host has not so much.
    """

    def __init__(self, vm: X86VM, size: int) -> None:
        if size < 1 << 20 or size % _PAGE:
            raise UsageError(
                f"memory of {size} bytes is not valid, expected a multiple of 4K, at least 1M"
            )
        low = min(size, HOLE_START)
        self.size = size
        self._blocks: list[tuple[int, GuestMemory]] = []
        try:
            self._add(vm, 0, low)
            if size > low:
                self._add(vm, HOLE_END, size - low)
        except BaseException:
            self.close()
            raise

    def _add(self, vm: X86VM, address: int, size: int) -> None:
        try:
            block = GuestMemory(size)
        except KvmError:
            raise AcceleratorError(
                f"this host cannot reserve {size >> 20} MiB of memory for the guest"
            ) from None
        self._blocks.append((address, block))
        vm.add_memory(len(self._blocks) - 1, address, block)

    def write(self, address: int, data: bytes) -> None:
        """Copy `data` to guest-physical `address`. Raises `ImageError` where there is no RAM."""
        for start, block in self._blocks:
            if start <= address and address + len(data) <= start + block.size:
                block.write(address - start, data)
                return
        raise ImageError(
            f"{len(data)} bytes at {address:#x} do not fit into {self.size >> 20} MiB of RAM"
        )

    def check(self, address: int, size: int, what: str) -> None:
        """Raise `ImageError` unless there is RAM for `what` at `address`."""
        if not any(s <= address and address + size <= s + b.size for s, b in self._blocks):
            raise ImageError(
                f"{what} needs {size} bytes at {address:#x}, which do not fit into "
                f"{self.size >> 20} MiB of RAM; load it elsewhere or give the guest more memory"
            )

    def read_some(self, address: int, length: int) -> bytes:
        """Up to `length` bytes from guest-physical `address`; empty where there is no RAM."""
        for start, block in self._blocks:
            if start <= address < start + block.size:
                return block.read(address - start, min(length, start + block.size - address))
        return b""

    def close(self) -> None:
        """Give the memory back; the VM must be closed first."""
        for _, block in self._blocks:
            try:
                block.close()
            except KvmError:
                continue  # a caller holds a view of it: it goes when that does
        self._blocks.clear()
