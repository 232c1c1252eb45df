"""Caches: what a model says of them, and the CPUID registers that describe them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpufw.core.topology import TopologyLevel
from cpufw.errors import ModelError
from cpufw_x86.apicid import ApicIdLayout
from cpufw_x86.cpuid import Registers

KIB = 1024
MIB = 1024 * KIB


class CacheType(enum.Enum):
    """What a cache holds; the numbers are CPUID leaf 4's (EAX bits 4:0)."""

    DATA = 1
    INSTRUCTION = 2
    UNIFIED = 3


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache, as a model's definition describes it; sizes are bytes.

    `share_level` is the smallest unit of the topology whose threads all share it.
    """

    level: int
    type: CacheType
    size: int
    line_size: int
    associativity: int
    partitions: int
    sets: int
    lines_per_tag: int
    self_init: bool
    no_invd_sharing: bool
    inclusive: bool
    complex_indexing: bool
    share_level: TopologyLevel

    def __post_init__(self) -> None:
        computed = self.line_size * self.associativity * self.partitions * self.sets
        if self.size != computed:
            raise ModelError(
                f"level {self.level} {self.type.name.lower()} cache: size {self.size} is not "
                f"line-size * associativity * partitions * sets, which is {computed}"
            )

    @classmethod
    def from_mapping(cls, entry: Mapping[str, Any]) -> Cache:
        """The cache that an entry of a definition's `caches` describes (already schema-checked).

        Raises `ModelError` where the size contradicts the geometry.
        """
        fields = {key.replace("-", "_"): value for key, value in entry.items()}
        fields["type"] = CacheType[str(fields["type"]).upper()]
        fields["share_level"] = TopologyLevel(fields["share_level"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class CacheSet:
    """The caches of one CPU as each family of leaves describes them.

    A real CPU's leaves agree. QEMU's legacy caches do not, and guests rely on their figures.
    """

    descriptors: tuple[Cache, ...]
    """Leaf 2."""
    deterministic: tuple[Cache, ...]
    """Leaf 4."""
    extended: tuple[Cache, ...]
    """Leaves 0x80000005 and 0x80000006."""
    extended_topology: tuple[Cache, ...]
    """Leaf 0x8000001D."""

    @classmethod
    def of(cls, caches: tuple[Cache, ...] | None, l3: bool = True) -> CacheSet:
        """The set for a model's `caches`, None for the legacy ones.

        `l3` False drops level 3, but not from leaf 0x8000001D, where QEMU always shows it.
        """
        views = (caches,) * 3 if caches is not None else _LEGACY_VIEWS
        shown = [tuple(c for c in view if l3 or c.level < 3) for view in views]
        return cls(shown[0], shown[1], shown[2], extended_topology=views[2])


def _first_level(type: CacheType, size: int, ways: int, lines_per_tag: int) -> Cache:
    sets = size // (64 * ways)
    return Cache(
        1, type, size, 64, ways, 1, sets, lines_per_tag,
        self_init=True, no_invd_sharing=True, inclusive=False, complex_indexing=False,
        share_level=TopologyLevel.CORE,
    )  # fmt: skip


def _second_level(
    size: int, ways: int, lines_per_tag: int, *, self_init: bool, no_invd_sharing: bool
) -> Cache:
    return Cache(
        2, CacheType.UNIFIED, size, 64, ways, 1, size // (64 * ways), lines_per_tag,
        self_init=self_init, no_invd_sharing=no_invd_sharing, inclusive=False,
        complex_indexing=False, share_level=TopologyLevel.CORE,
    )  # fmt: skip


_LEGACY_L1_INTEL = (
    _first_level(CacheType.DATA, 32 * KIB, ways=8, lines_per_tag=0),
    _first_level(CacheType.INSTRUCTION, 32 * KIB, ways=8, lines_per_tag=0),
)
_LEGACY_L3 = Cache(
    3, CacheType.UNIFIED, 16 * MIB, 64, 16, 1, 16384, 1,
    self_init=True, no_invd_sharing=False, inclusive=True, complex_indexing=True,
    share_level=TopologyLevel.DIE,
)  # fmt: skip
_LEGACY_DESCRIPTORS = (
    *_LEGACY_L1_INTEL,
    _second_level(2 * MIB, 8, 0, self_init=False, no_invd_sharing=False),
    _LEGACY_L3,
)
_LEGACY_DETERMINISTIC = (
    *_LEGACY_L1_INTEL,
    _second_level(4 * MIB, 16, 0, self_init=True, no_invd_sharing=True),
    _LEGACY_L3,
)
_LEGACY_EXTENDED = (
    _first_level(CacheType.DATA, 64 * KIB, ways=2, lines_per_tag=1),
    _first_level(CacheType.INSTRUCTION, 64 * KIB, ways=2, lines_per_tag=1),
    _second_level(512 * KIB, 16, 1, self_init=False, no_invd_sharing=False),
    _LEGACY_L3,
)
_LEGACY_VIEWS: tuple[tuple[Cache, ...], ...] = (
    _LEGACY_DESCRIPTORS,
    _LEGACY_DETERMINISTIC,
    _LEGACY_EXTENDED,
)

SEE_LEAF_4 = 0xFF
"""The leaf 2 descriptor that says: this leaf does not describe the cache, leaf 4 does."""

_LEAF_2_DESCRIPTORS = {
    # (level, type): {(size, ways): descriptor}, caches with 64-byte lines.
    # Source: Intel SDM vol. 2A, CPUID, "Encoding of CPUID Leaf 2 Descriptors".
    (1, CacheType.DATA): {
        (8 * KIB, 4): 0x66, (16 * KIB, 4): 0x0D, (16 * KIB, 8): 0x60, (24 * KIB, 6): 0x0E,
        (32 * KIB, 4): 0x68, (32 * KIB, 8): 0x2C,
    },
    (1, CacheType.INSTRUCTION): {(32 * KIB, 4): 0x09, (32 * KIB, 8): 0x30},
    (2, CacheType.UNIFIED): {
        (128 * KIB, 2): 0x1D, (256 * KIB, 8): 0x21, (512 * KIB, 2): 0x7F, (512 * KIB, 4): 0x86,
        (512 * KIB, 8): 0x80, (1 * MIB, 4): 0x78, (1 * MIB, 8): 0x87, (1 * MIB, 16): 0x24,
        (2 * MIB, 8): 0x7D, (3 * MIB, 12): 0x48, (6 * MIB, 24): 0x4E,
    },
    (3, CacheType.UNIFIED): {
        (512 * KIB, 4): 0xD0, (1 * MIB, 4): 0xD1, (1 * MIB, 8): 0xD6, (1536 * KIB, 12): 0xDC,
        (2 * MIB, 4): 0xD2, (2 * MIB, 8): 0xD7, (2 * MIB, 16): 0xE2, (3 * MIB, 12): 0xDD,
        (4 * MIB, 8): 0xD8, (4 * MIB, 16): 0xE3, (6 * MIB, 12): 0x4A, (8 * MIB, 16): 0x4B,
        (12 * MIB, 12): 0x4C, (12 * MIB, 24): 0xEA, (16 * MIB, 16): 0x4D, (18 * MIB, 24): 0xEB,
        (24 * MIB, 24): 0xEC,
    },
}  # fmt: skip

_EXTENDED_ASSOCIATIVITY = {
    # AMD APM vol. 3, Fn8000_0006 "L2/L3 Cache and TLB Associativity Field Encodings".
    1: 0x1, 2: 0x2, 3: 0x3, 4: 0x4, 6: 0x5, 8: 0x6, 16: 0x8, 32: 0xA, 48: 0xB, 64: 0xC, 96: 0xD,
    128: 0xE,
}  # fmt: skip
_SEE_LEAF_8000001D = 0x9


def descriptor(caches: tuple[Cache, ...], level: int, type: CacheType) -> int:
    """The leaf 2 byte for the cache of this level and type: 0 for none, 0xFF for 'see leaf 4'."""
    cache = _find(caches, level, type)
    if cache is None:
        return 0
    known = _LEAF_2_DESCRIPTORS.get((level, type), {})
    if cache.line_size != 64:
        return SEE_LEAF_4
    return known.get((cache.size, cache.associativity), SEE_LEAF_4)


def deterministic_registers(cache: Cache, layout: ApicIdLayout, shared: bool = True) -> Registers:
    """Leaf 4's registers for `cache` (Intel SDM vol. 2A, CPUID, "Deterministic Cache Parameters").

    Both sharing counts are of addressable ids, a power of two, less one; a cache that is not
    `shared` is each thread's own.
    """
    core_bits = layout.shift(TopologyLevel.SOCKET) - layout.shift(TopologyLevel.CORE)
    cores_per_package = min((1 << core_bits) - 1, 0x3F)
    eax, ebx, ecx, edx = _geometry(cache, layout)
    if not shared:
        eax &= ~(0xFFF << 14)
    return eax | cores_per_package << 26, ebx, ecx, edx | cache.complex_indexing << 2


def extended_registers(
    cache: Cache, layout: ApicIdLayout, complex_indexing_hidden: bool = True
) -> Registers:
    """Leaf 0x8000001D's registers for `cache` (AMD APM vol. 3, "Cache Topology Information")."""
    eax, ebx, ecx, edx = _geometry(cache, layout)
    shown = cache.complex_indexing and not complex_indexing_hidden
    return eax, ebx, ecx, edx | shown << 2


def _geometry(cache: Cache, layout: ApicIdLayout) -> Registers:
    sharing_ids = min((1 << layout.shift(cache.share_level)) - 1, 0xFFF)
    return (
        cache.type.value | cache.level << 5 | cache.self_init << 8 | sharing_ids << 14,
        (cache.line_size - 1) | (cache.partitions - 1) << 12 | (cache.associativity - 1) << 22,
        cache.sets - 1,
        cache.no_invd_sharing << 0 | cache.inclusive << 1,
    )


def extended_l1_register(caches: tuple[Cache, ...], type: CacheType) -> int:
    """Leaf 0x80000005's ECX (data) or EDX (instruction); 0 where there is no such cache."""
    cache = _find(caches, 1, type)
    if cache is None:
        return 0
    size, ways = min(cache.size // KIB, 0xFF), min(cache.associativity, 0xFF)
    return size << 24 | ways << 16 | cache.lines_per_tag << 8 | cache.line_size


def extended_l2_register(caches: tuple[Cache, ...]) -> int:
    """Leaf 0x80000006's ECX; 0 where there is no level 2 cache."""
    cache = _find(caches, 2, CacheType.UNIFIED)
    return min(cache.size // KIB, 0xFFFF) << 16 | _extended_low(cache) if cache else 0


def extended_l3_register(caches: tuple[Cache, ...]) -> int:
    """Leaf 0x80000006's EDX, the size in units of 512 KiB; 0 where there is no level 3 cache."""
    cache = _find(caches, 3, CacheType.UNIFIED)
    return min(cache.size // (512 * KIB), 0x3FFF) << 18 | _extended_low(cache) if cache else 0


def _extended_low(cache: Cache) -> int:
    ways = _EXTENDED_ASSOCIATIVITY.get(cache.associativity, _SEE_LEAF_8000001D)
    return ways << 12 | cache.lines_per_tag << 8 | cache.line_size


def _find(caches: tuple[Cache, ...], level: int, type: CacheType) -> Cache | None:
    return next((c for c in caches if c.level == level and c.type is type), None)
