"""A PC's memory as pages of the stream."""

from __future__ import annotations

import os
from collections.abc import Iterator

from cpufw.errors import StateError
from cpufw.kvm import GuestMemory
from cpufw.snapshot.pages import MOST_PAGES, PAGE, Pages, all_pages
from cpufw.snapshot.saved import Block
from cpufw_x86.kvm import X86VM
from cpufw_x86.memory import GuestRam

_CHUNK = MOST_PAGES * PAGE


class SavedMemory:
    """The RAM of a VM."""

    def __init__(self, vm: X86VM, ram: GuestRam) -> None:
        self._vm, self._ram = vm, ram

    def blocks(self) -> list[Block]:
        """See SavableBoard."""
        return [Block(address, memory.size) for address, memory in self._ram.blocks]

    def _memory(self, block: Block) -> GuestMemory:
        for address, memory in self._ram.blocks:
            if (address, memory.size) == block:
                return memory
        raise StateError(f"there is no memory of {block.size:#x} bytes at {block.address:#x}")

    def _slots(self) -> dict[int, int]:
        """The memory slot of each block by its address."""
        mine = [address for address, _ in self._ram.blocks]
        return {at: slot for slot, at, _ in self._vm.memory_blocks() if at in mine}

    def pages(self, block: Block, wanted: bytes | None = None) -> Iterator[Pages]:
        """See SavableBoard."""
        memory = self._memory(block)
        page_map = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for start in range(0, block.size, _CHUNK):
                count = min(_CHUNK, block.size - start) // PAGE
                if wanted is None:
                    sent = all_pages(count)
                else:
                    sent = wanted[start // PAGE // 8 : start // PAGE // 8 + (count + 7) // 8]
                    if not any(sent):
                        continue
                if memory.is_untouched(start, count, page_map):
                    filled, data = bytes(len(sent)), b""
                else:
                    filled, data = memory.pack_pages(start, count, sent)
                yield Pages(block.address + start, count, sent, filled, data)
        finally:
            os.close(page_map)

    def load_pages(self, pages: Pages) -> None:
        """See SavableBoard."""
        address, count, sent, filled, data = pages
        end = address + count * PAGE
        for start, memory in self._ram.blocks:
            if start <= address and end <= start + memory.size:
                memory.unpack_pages(address - start, count, sent, filled, data)
                return
        raise StateError(f"there is no memory at {address:#x}-{end - 1:#x}, where saved pages go")

    def log_dirty_pages(self, on: bool) -> None:
        """See SavableBoard."""
        for slot in self._slots().values():
            self._vm.log_dirty_pages(slot, on)

    def dirty_pages(self, block: Block) -> bytes:
        """See SavableBoard."""
        return self._vm.get_dirty_log(self._slots()[block.address])
