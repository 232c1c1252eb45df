"""A PC's RAM: below the 32-bit hole and, what does not fit there, above 4 GiB."""

from __future__ import annotations

from cpufw.errors import AcceleratorError, ImageError, KvmError, UsageError
from cpufw.kvm import GuestMemory, MemoryBackend
from cpufw_x86.kvm import X86VM
from cpufw_x86.memory_map import HOLE_END, HOLE_START

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PAGE = 0x1000
_MOST_DIGITS = 20  # Python refuses to read numbers of thousands of digits
_ZEROS = bytes(1 << 20)


def parse_size(text: str | int) -> int:
    """Bytes: `"128M"`, `"2G"`, a number alone counts MiB as in QEMU. Raises `UsageError`."""
    if isinstance(text, int):
        return text
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "M")
    is_number = number.isascii() and number.isdigit() and len(number) < _MOST_DIGITS
    if not is_number or unit not in _UNITS:
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

    def __init__(self, vm: X86VM, size: int, backend: MemoryBackend | None = None) -> None:
        if size < 1 << 20 or size % _PAGE:
            raise UsageError(
                f"memory of {size} bytes is not valid, expected a multiple of 4K, at least 1M"
            )
        low = min(size, HOLE_START)
        self.size = size
        self._vm = vm
        self._backend = backend or MemoryBackend()
        self._rom: GuestMemory | None = None
        self._blocks: list[tuple[int, GuestMemory]] = []
        try:
            self._add(0, low)
            if size > low:
                self._add(HOLE_END, size - low)
        except BaseException:
            self.close()
            raise

    def _add(self, address: int, size: int) -> None:
        try:
            block = GuestMemory(size, self._backend)
        except KvmError as error:
            raise AcceleratorError(
                f"this host cannot reserve {size >> 20} MiB of memory for the guest: {error}"
            ) from None
        self._blocks.append((address, block))
        self._vm.add_memory(len(self._blocks) - 1, address, block)

    def set_rom(self, data: bytes) -> None:
        """Read-only memory that ends at 4 GiB, once; what the guest writes there is lost.

        `data` is a whole number of pages.
        """
        if self._rom is None:
            self._rom = GuestMemory(len(data))
            self._rom.write(0, data)
            slot = max(self._vm.memory) + 1
            self._vm.add_memory(slot, HOLE_END - len(data), self._rom, readonly=True)

    @property
    def rom(self) -> bytes:
        """What `set_rom` was given; empty without."""
        return self._rom.read(0, self._rom.size) if self._rom is not None else b""

    def wrote(self, address: int, length: int) -> None:
        """Take note of a write that went past this object: KVM does not log these as dirty."""
        for start, block in self._blocks:
            if start <= address < start + block.size:
                block.note_written(address - start, length)

    @property
    def blocks(self) -> tuple[tuple[int, GuestMemory], ...]:
        """Each piece of RAM with its guest-physical address."""
        return tuple(self._blocks)

    def write(self, address: int, data: bytes | memoryview) -> None:
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

    def read(self, address: int, length: int) -> bytes:
        """Exactly `length` bytes from guest-physical `address`.

        Raises `ImageError` where there is no RAM.
        """
        self.check(address, length, "what is read")
        return self.read_some(address, length)

    def fill_zero(self, address: int, size: int) -> None:
        """Make `size` bytes from `address` zero; memory that is zero already is not written to.

        Raises `ImageError` where there is no RAM.
        """
        for start in range(address, address + size, len(_ZEROS)):
            zeros = _ZEROS[: address + size - start]
            if self.read(start, len(zeros)) != zeros:
                self.write(start, zeros)

    def read_some(self, address: int, length: int) -> bytes:
        """Up to `length` bytes from guest-physical `address`; empty where there is no RAM."""
        for start, block in self._blocks:
            if start <= address < start + block.size:
                return block.read(address - start, min(length, start + block.size - address))
        return b""

    def close(self) -> None:
        """Give the memory back; the VM must be closed first."""
        rom = [(0, self._rom)] if self._rom is not None else []
        for _, block in self._blocks + rom:
            try:
                block.close()
            except KvmError:
                continue  # a caller holds a view of it: it goes when that does
        self._blocks.clear()
