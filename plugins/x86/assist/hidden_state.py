"""Vector state that ring 3 has on the PVM back end and the guest's kernel does not know of.

There CPUID and XCR0 of ring 3 are the host's, so programs use AVX-512 whatever the model; a kernel
with fewer components in XCR0 would let one program's registers run into the next one's. What a
kernel's XSAVE leaves out is kept here for its XRSTOR from the same place.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from cpufw_x86.assist import vector_state as vs

if TYPE_CHECKING:
    from cpufw_x86.assist.vector_state import VectorState

_MOST_PLACES = 4096
"""Of these the one not saved to for the longest time is given up: a guest has few threads."""

_CARRIED = {number: vs.PLACES[number] for number in (vs.AVX, vs.OPMASK, vs.ZMM_HI256, vs.HI16_ZMM)}


class HiddenState:
    """What is kept, by the guest-physical address of the XSAVE area; one for all vCPUs."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, dict[int, bytes]] = OrderedDict()

    def keep(self, place: int, vectors: VectorState, xcr0: int) -> None:
        """The kernel has saved to `place` all that is in its XCR0."""
        self._kept.pop(place, None)
        unsaved = vectors.in_use & ~xcr0
        if not unsaved:
            return
        parts = {
            number: bytes(vectors.area[offset : offset + size])
            for number, (offset, size) in _CARRIED.items()
            if unsaved & 1 << number
        }
        if parts:
            self._kept[place] = parts
            if len(self._kept) > _MOST_PLACES:
                self._kept.popitem(last=False)

    def give(self, place: int, vectors: VectorState, xcr0: int) -> None:
        """The kernel has restored from `place`: give back the rest, initial if none was kept."""
        parts = self._kept.get(place, {})
        if not parts and not vectors.in_use & ~xcr0:
            return
        for number, (offset, size) in _CARRIED.items():
            if xcr0 >> number & 1:
                continue
            if number in parts:
                vectors.change(number)[offset : offset + size] = parts[number]
            elif vectors.in_use >> number & 1:
                vectors.change(number)[offset : offset + size] = bytes(size)
                vectors.set_in_use(vectors.in_use & ~(1 << number))
