"""The XSAVE components that a CPU's features bring, and leaf 0xD that describes them.

Sizes, offsets and flags are those of Intel SDM vol. 1, chapter 13 "Managing State Using the XSAVE
Feature Set" and, for AMX, chapter 18; the components without an offset are supervisor state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cpufw_x86.cpuid import CpuidLeaf

LEGACY_AREA_SIZE = 512
HEADER_SIZE = 64
X87_SSE = 0b11
"""Components 0 and 1: in the legacy area of every XSAVE image."""


@dataclass(frozen=True, slots=True)
class XsaveComponent:
    """One state component of XSAVE.

    It exists where one of the feature bits `needs` (word, bit) is set. `size` and `offset` are
    bytes; `offset` is the place in the standard format, None for supervisor state, which only
    the compacted format holds. `aligned` components start at a multiple of 64 bytes there.
    """

    number: int
    name: str
    needs: tuple[tuple[str, int], ...]
    size: int
    offset: int | None
    aligned: bool = False
    faults: bool = False  # its first use can be trapped with XFD

    @property
    def bit(self) -> int:
        """The component's bit in XCR0 or IA32_XSS."""
        return 1 << self.number

    def leaf(self, xfd: bool) -> CpuidLeaf:
        """Subleaf `number` of leaf 0xD, on a CPU with or without XFD (Intel SDM vol. 1, 13.2)."""
        flags = (self.offset is None) << 0 | self.aligned << 1 | (self.faults and xfd) << 2
        return CpuidLeaf(0xD, self.number, self.size, self.offset or 0, flags, 0)


_AVX512 = (("7.0.EBX", 16), ("7.1.EDX", 19))  # AVX-512F, or AVX10, which includes its state
_AMX_TILE = (("7.0.EDX", 24),)
_MPX = (("7.0.EBX", 14),)

COMPONENTS = (
    XsaveComponent(2, "avx", (("1.ECX", 28),), size=256, offset=576),
    XsaveComponent(3, "bndregs", _MPX, size=64, offset=960),
    XsaveComponent(4, "bndcsr", _MPX, size=64, offset=1024),
    XsaveComponent(5, "opmask", _AVX512, size=64, offset=1088),
    XsaveComponent(6, "zmm_hi256", _AVX512, size=512, offset=1152),
    XsaveComponent(7, "hi16_zmm", _AVX512, size=1024, offset=1664),
    XsaveComponent(9, "pkru", (("7.0.ECX", 3),), size=8, offset=2688),
    XsaveComponent(15, "arch_lbr", (("7.0.EDX", 19),), size=808, offset=None),
    XsaveComponent(17, "tilecfg", _AMX_TILE, size=64, offset=2752, aligned=True),
    XsaveComponent(18, "tiledata", _AMX_TILE, size=8192, offset=2816, aligned=True, faults=True),
)

XSAVE = ("1.ECX", 26)
XSAVES = ("D.1.EAX", 3)
XFD = ("D.1.EAX", 4)


def components(words: Mapping[str, int]) -> tuple[XsaveComponent, ...]:
    """The components above SSE that a CPU with these feature words has, by number."""
    if not _has(words, XSAVE):
        return ()
    return tuple(
        component
        for component in COMPONENTS
        if any(_has(words, need) for need in component.needs)
        and (component.offset is not None or _has(words, XSAVES))
    )


def xcr0_mask(words: Mapping[str, int]) -> int:
    """Every bit that may be set in XCR0 (64 bits); 0 without XSAVE."""
    if not _has(words, XSAVE):
        return 0
    return X87_SSE | sum(part.bit for part in components(words) if part.offset is not None)


def xss_mask(words: Mapping[str, int]) -> int:
    """Every bit that may be set in IA32_XSS (64 bits)."""
    return sum(part.bit for part in components(words) if part.offset is None)


def standard_size(parts: tuple[XsaveComponent, ...]) -> int:
    """Bytes of an XSAVE image of these components in the standard format."""
    ends = [part.offset + part.size for part in parts if part.offset is not None]
    return max(ends, default=LEGACY_AREA_SIZE + HEADER_SIZE)


def compacted_size(parts: tuple[XsaveComponent, ...]) -> int:
    """Bytes of an XSAVE image of these components in the compacted format."""
    size = LEGACY_AREA_SIZE + HEADER_SIZE
    for part in parts:
        if part.aligned:
            size = (size + 63) & ~63
        size += part.size
    return size


def xsave_leaves(words: Mapping[str, int]) -> Iterator[CpuidLeaf]:
    """Leaf 0xD for a CPU with these feature words; nothing without XSAVE.

    D.0.EBX is the size after reset, when XCR0 holds x87 alone, and D.1.EBX the size with every
    component enabled; hardware and KVM keep both up to date while a guest changes XCR0 and XSS.
    """
    if not _has(words, XSAVE):
        return
    parts = components(words)
    xcr0, xss = xcr0_mask(words), xss_mask(words)
    low = 0xFFFFFFFF
    reset_size = standard_size(())
    yield CpuidLeaf(0xD, 0, xcr0 & low, reset_size, standard_size(parts), xcr0 >> 32)
    optional = words.get("D.1.EAX", 0)
    yield CpuidLeaf(0xD, 1, optional, compacted_size(parts), xss & low, xss >> 32)
    for part in parts:
        yield part.leaf(xfd=_has(words, XFD))


def _has(words: Mapping[str, int], bit: tuple[str, int]) -> bool:
    word, number = bit
    return bool(words.get(word, 0) >> number & 1)
