"""x87, SSE, AVX and AVX-512 registers: the XSAVE area that KVM keeps for a vCPU."""

from __future__ import annotations

from typing import Protocol

from cpufw_x86.xsave import COMPONENTS

# The legacy area and the header: Intel SDM vol. 1, 13.4.1 and 13.4.2.
FCW, FSW, FTW, FIP, MXCSR, ST, XMM = 0, 2, 4, 8, 24, 32, 160
XSTATE_BV, XCOMP_BV = 512, 520
LEGACY_SIZE, HEADER_END = 512, 576
FCW_INIT, MXCSR_INIT = 0x37F, 0x1F80

X87, SSE, AVX, OPMASK, ZMM_HI256, HI16_ZMM = 0, 1, 2, 5, 6, 7

PLACES = {part.number: (part.offset, part.size) for part in COMPONENTS if part.offset is not None}
"""Where each component from 2 on lies in the standard format: offset, size."""


class Backing(Protocol):
    """Where the area comes from and goes to."""

    def get_xsave(self) -> bytearray:
        """The area in the standard format; it may be the same object each time."""
        ...

    def set_xsave(self, area: bytearray) -> None:
        """Set it."""
        ...


class VectorState:
    """The registers, fetched at the first use after `forget` and given back by `flush`."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._area: bytearray | None = None
        self._changed = False

    def forget(self) -> None:
        """The CPU has run: what is here is of no use any more."""
        self._area, self._changed = None, False

    def flush(self) -> None:
        """Give the CPU what was changed."""
        if self._changed and self._area is not None:
            self._backing.set_xsave(self._area)
            self._changed = False

    @property
    def area(self) -> bytearray:
        """The whole area, to read."""
        if self._area is None:
            self._area = self._backing.get_xsave()
        return self._area

    def change(self, component: int) -> bytearray:
        """The whole area, to change what belongs to `component`, which is in use from now on."""
        area = self.area
        self._changed = True
        area[XSTATE_BV + component // 8] |= 1 << component % 8
        return area

    @property
    def in_use(self) -> int:
        """XSTATE_BV: the components that are not in their initial state."""
        return int.from_bytes(self.area[XSTATE_BV : XSTATE_BV + 8], "little")

    def set_in_use(self, mask: int) -> None:
        """Set XSTATE_BV."""
        self._changed = True
        self.area[XSTATE_BV : XSTATE_BV + 8] = mask.to_bytes(8, "little")

    def word(self, offset: int, size: int) -> int:
        """A number in the area."""
        return int.from_bytes(self.area[offset : offset + size], "little")

    def read(self, index: int, size: int) -> int:
        """XMM (`size` 16), YMM (32) or ZMM (64) register `index` as one number."""
        if size == 16 and index < 16:  # by far the most
            at = XMM + 16 * index
            return int.from_bytes(self.area[at : at + 16], "little")
        data = b"".join(bytes(self.area[at : at + n]) for _, at, n in _parts(index, size))
        return int.from_bytes(data, "little")

    def write(self, index: int, size: int, value: int, *, clear_above: bool) -> None:
        """Set the lowest `size` bytes; what is above stays (SSE) or becomes zero (AVX)."""
        if size == 16 and index < 16 and not clear_above:
            at = XMM + 16 * index
            self.change(SSE)[at : at + 16] = value.to_bytes(16, "little")
            return
        for component, at, length in _parts(index, size):
            self.change(component)[at : at + length] = (value & (1 << 8 * length) - 1).to_bytes(
                length, "little"
            )
            value >>= 8 * length
        if clear_above:
            for component, at, length in _parts(index, 64)[len(_parts(index, size)) :]:
                if self.in_use >> component & 1:
                    self.change(component)[at : at + length] = bytes(length)


_Part = tuple[int, int, int]


def _parts(index: int, size: int) -> list[_Part]:
    """Component, offset and length of each piece of a register, lowest first."""
    if index >= 16:
        return [(HI16_ZMM, PLACES[HI16_ZMM][0] + 64 * (index - 16), size)]
    parts = [(SSE, XMM + 16 * index, 16)]
    if size > 16:
        parts.append((AVX, PLACES[AVX][0] + 16 * index, 16))
    if size > 32:
        parts.append((ZMM_HI256, PLACES[ZMM_HI256][0] + 32 * index, 32))
    return parts
