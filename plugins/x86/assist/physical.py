"""Guest RAM by guest-physical address, and the way there from linear ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cpufw_x86.assist.faults import PAGE_FAULT, Fault, Unassisted
from cpufw_x86.kvm.native import ffi, lib

if TYPE_CHECKING:
    from cpufw_x86.kvm import Sregs
    from cpufw_x86.memory import GuestRam

WRITE: int = lib.CPUFW_WRITE
USER: int = lib.CPUFW_USER
_PAGE_FAULT: int = lib.CPUFW_PAGE_FAULT
_LONGEST_ENTRY = 8  # bytes, of the page tables


class PhysicalMemory:
    """The RAM of a guest; valid as long as `ram` is open.

    `on_write(address, length)`, if set, hears of every write: KVM does not log these as dirty.
    """

    def __init__(self, ram: GuestRam) -> None:
        self._ram = ffi.new("struct cpufw_ram *")
        self._at, self._translate = lib.cpufw_ram_at, lib.cpufw_translate
        for place, (start, block) in zip(self._ram.blocks, ram.blocks, strict=False):
            place.start, place.size = start, block.size
            place.host = ffi.cast("uint8_t *", block.host_address)
        self._ram.count = len(ram.blocks)
        self.on_write: Callable[[int, int], None] | None = None

    def _host(self, address: int, length: int) -> Any:
        host = self._at(self._ram, address, length)
        if not host:
            raise Unassisted(f"no RAM at guest-physical address {address:#x}")
        return host

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes. Raises `Unassisted` where there is no RAM."""
        data: bytes = ffi.buffer(self._host(address, length), length)[:]
        return data

    def write(self, address: int, data: bytes) -> None:
        """Raises `Unassisted`, and writes nothing, where there is no RAM."""
        ffi.memmove(self._host(address, len(data)), data, len(data))
        if self.on_write is not None:
            self.on_write(address, len(data))

    def compare_exchange(self, address: int, old: bytes, new: bytes) -> bool:
        """Write `new` if `old` is there, atomically for every vCPU; whether it was.

        1, 2, 4, 8 or 16 bytes, naturally aligned.
        """
        host = self._host(address, len(old))
        done = bool(lib.cpufw_compare_exchange(host, old, new, len(old)))
        if done and self.on_write is not None:
            self.on_write(address, len(old))
        return done

    def translate(self, found: Any, sregs: Sregs, rflags: int, linear: int, access: int) -> int:
        """The guest-physical address of a data access with the rights `access` (WRITE, USER).

        `found` is a struct cpufw_translation of the caller's, to be written to.
        The page tables are walked anew each time, and accessed and dirty bits set on the way.
        Raises `Fault` (#PF) as the CPU would, `Unassisted` for tables outside RAM.
        """
        result = self._translate(self._ram, sregs, rflags, linear, access, found)
        if not result:
            if found.changed and self.on_write is not None:
                for entry in found.entries[0 : found.changed]:
                    self.on_write(entry, _LONGEST_ENTRY)
            physical: int = found.physical
            return physical
        if result < 0:
            raise Unassisted(f"the page tables of {linear:#x} are not in RAM")
        raise Fault(PAGE_FAULT, result & ~_PAGE_FAULT, linear)  # Intel SDM vol. 3A, figure 5-12
