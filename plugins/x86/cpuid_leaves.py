"""The CPUID leaves of a model, each from the identity and the topology."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from cpufw.core.topology import TopologyLevel
from cpufw_x86.apicid import ApicIdLayout
from cpufw_x86.caches import (
    CacheSet,
    CacheType,
    descriptor,
    deterministic_registers,
    extended_l1_register,
    extended_l2_register,
    extended_l3_register,
    extended_registers,
)
from cpufw_x86.cpuid import CENTAUR_BASE, EXTENDED_BASE, CpuidLeaf, Registers
from cpufw_x86.cpuid_words import AVX10, INTEL_PT, SGX, SVM, is_multi_die
from cpufw_x86.identity import AMD, BRAND_LENGTH, CpuIdentity
from cpufw_x86.xsave import xcr0_mask, xsave_leaves

CLFLUSH_QUADWORDS = 8
"""A CLFLUSH line of 64 bytes, in leaf 1's unit."""
MWAIT_EXTENSIONS = 0b11
"""Leaf 5 ECX: MWAIT states can be enumerated; interrupts break MWAIT though masked."""
AMX_TILE = 1 << 24
"""7.0.EDX."""
LONG_MODE = 1 << 29
"""80000001.EDX."""
LA57 = 1 << 16
"""7.0.ECX: linear addresses of 57 bits."""

KVM_SIGNATURE = b"KVMKVMKVM\0\0\0"
KVM_FEATURES, KVM_TIMING = 1, 0x10
"""Counted from where KVM's leaves begin."""
KVM_BUS_KHZ = 1_000_000
"""The frequency of KVM's local APIC timer."""

L1_TLB = 0x01FF01FF
"""Leaf 0x80000005 EAX and EBX: 255 entries, direct-mapped, for either page size."""
L2_TLB = 0x42004200
"""Leaf 0x80000006 EBX: 512 entries, 4 ways, for instructions and data."""

SVM_REVISION = 1
SVM_ASIDS = 16

_TOPOLOGY_TYPES = {
    # Domain types of leaves 0xB and 0x1F (Intel SDM vol. 2A, CPUID, leaf 1FH).
    TopologyLevel.THREAD: 1,
    TopologyLevel.CORE: 2,
    TopologyLevel.MODULE: 3,
    TopologyLevel.DIE: 5,
}


def basic_leaves(
    identity: CpuIdentity, words: Mapping[str, int], caches: CacheSet, layout: ApicIdLayout
) -> Iterator[CpuidLeaf]:
    """Leaves 0 to 0x24, for APIC id 0; some may lie beyond `identity.level`."""

    def word(name: str) -> int:
        return words.get(name, 0)

    vendor = _vendor_registers(identity.vendor)
    yield CpuidLeaf(0, 0, identity.level, *vendor)
    threads = min(layout.threads_per(TopologyLevel.SOCKET), 0xFF)
    logical = threads << 16 if threads > 1 else 0
    ebx = CLFLUSH_QUADWORDS << 8 | logical
    yield CpuidLeaf(1, 0, identity.signature, ebx, word("1.ECX"), word("1.EDX"))
    if identity.vendor != AMD or not identity.vendor_leaves_only:
        yield _descriptor_leaf(caches)
        for index, cache in enumerate(caches.deterministic):
            shared = cache.level > 1 or identity.l1_cache_per_thread
            yield CpuidLeaf(4, index, *deterministic_registers(cache, layout, shared))
    yield CpuidLeaf(5, 0, 0, 0, MWAIT_EXTENSIONS, 0)
    yield CpuidLeaf(6, 0, word("6.EAX"), 0, 0, 0)
    yield CpuidLeaf(7, 0, identity.level_func7, word("7.0.EBX"), word("7.0.ECX"), word("7.0.EDX"))
    yield CpuidLeaf(7, 1, word("7.1.EAX"), 0, 0, word("7.1.EDX"))
    yield CpuidLeaf(7, 2, 0, 0, 0, word("7.2.EDX"))
    yield CpuidLeaf(0xA, 0, *identity.counters)
    if identity.cpuid_0xb:
        yield from _topology_leaves(0xB, (TopologyLevel.THREAD, TopologyLevel.CORE), layout)
    yield from xsave_leaves(words)
    if word("7.0.EBX") & SGX:
        xcr0 = xcr0_mask(words)
        yield CpuidLeaf(0x12, 0, word("12.0.EAX"), word("12.0.EBX"), 0, 0)
        yield CpuidLeaf(0x12, 1, word("12.1.EAX"), 0, xcr0 & 0xFFFFFFFF, xcr0 >> 32)
    if word("7.0.EBX") & INTEL_PT:
        yield from _processor_trace_leaves(word("14.0.ECX"))
    if word("7.0.EDX") & AMX_TILE:
        yield from _amx_leaves()
    if is_multi_die(layout):
        yield from _topology_leaves(0x1F, _distinguished_levels(layout), layout)
    if word("7.1.EDX") & AVX10:
        yield CpuidLeaf(0x24, 0, 0, identity.avx10_version | word("24.0.EBX"), 0, 0)


def kvm_leaves(words: Mapping[str, int], tsc_khz: int, base: int) -> Iterator[CpuidLeaf]:
    """The leaves by which a guest knows KVM (Linux, Documentation/virt/kvm/x86/cpuid.rst).

    Where its frequency is known the TSC's is told, too, with that of the bus, in kHz, in the leaf
    that VMware keeps for it.
    """
    limit = base + (KVM_TIMING if tsc_khz else KVM_FEATURES)
    yield CpuidLeaf(base, 0, limit, *struct.unpack("<3I", KVM_SIGNATURE))
    yield CpuidLeaf(base + KVM_TIMING, 0, tsc_khz, KVM_BUS_KHZ if tsc_khz else 0, 0, 0)
    features, hints = words.get("40000001.EAX", 0), words.get("40000001.EDX", 0)
    yield CpuidLeaf(base + KVM_FEATURES, 0, features, 0, 0, hints)


def extended_leaves(
    identity: CpuIdentity, words: Mapping[str, int], caches: CacheSet, layout: ApicIdLayout
) -> Iterator[CpuidLeaf]:
    """Leaves 0x80000000 to 0x80000022, for APIC id 0; some may lie beyond `identity.xlevel`."""

    def word(name: str) -> int:
        return words.get(name, 0)

    vendor = _vendor_registers(identity.vendor)
    yield CpuidLeaf(EXTENDED_BASE, 0, identity.xlevel, *vendor)
    yield CpuidLeaf(
        0x80000001, 0, identity.signature, 0, word("80000001.ECX"), word("80000001.EDX")
    )
    brand = identity.model_id.encode("ascii").ljust(BRAND_LENGTH, b"\0")
    for part, registers in enumerate(struct.iter_unpack("<4I", brand)):
        yield CpuidLeaf(0x80000002 + part, 0, *registers)
    view = caches.extended
    l1_data, l1_code = (
        extended_l1_register(view, type) for type in (CacheType.DATA, CacheType.INSTRUCTION)
    )
    yield CpuidLeaf(0x80000005, 0, L1_TLB, L1_TLB, l1_data, l1_code)
    yield CpuidLeaf(
        0x80000006, 0, 0, L2_TLB, extended_l2_register(view), extended_l3_register(view)
    )
    yield CpuidLeaf(0x80000007, 0, 0, word("80000007.EBX"), 0, word("80000007.EDX"))
    yield CpuidLeaf(
        0x80000008,
        0,
        _address_sizes(identity, words),
        word("80000008.EBX"),
        _package_size(layout),
        0,
    )
    if word("80000001.ECX") & SVM:
        yield CpuidLeaf(0x8000000A, 0, SVM_REVISION, SVM_ASIDS, 0, word("8000000A.EDX"))
    for index, cache in enumerate(caches.extended_topology):
        hidden = identity.complex_indexing_hidden
        yield CpuidLeaf(0x8000001D, index, *extended_registers(cache, layout, hidden))
    yield CpuidLeaf(0x8000001E, 0, *core_registers(layout, 0, identity.dies_are_nodes))
    yield CpuidLeaf(0x80000021, 0, word("80000021.EAX"), word("80000021.EBX"), 0, 0)
    if identity.pmu:
        yield CpuidLeaf(0x80000022, 0, word("80000022.EAX"), 0, 0, 0)


def centaur_leaves(identity: CpuIdentity, words: Mapping[str, int]) -> Iterator[CpuidLeaf]:
    """Leaves 0xC0000000 and 0xC0000001 (VIA and Zhaoxin)."""
    yield CpuidLeaf(CENTAUR_BASE, 0, identity.xlevel2, 0, 0, 0)
    yield CpuidLeaf(CENTAUR_BASE + 1, 0, identity.signature, 0, 0, words.get("C0000001.EDX", 0))


def core_registers(layout: ApicIdLayout, apic_id: int, dies_are_nodes: bool = False) -> Registers:
    """Leaf 0x8000001E (AMD APM vol. 3, E.4.16): the APIC id, the core's number, the node's.

    One node a package, or one a die. A core's number counts within its die and has 8 bits; the
    leaf is zero where it has no room for it.
    """
    slot = layout.slot(apic_id)
    core = slot.get(TopologyLevel.CORE)
    if core > 0xFF:
        return 0, 0, 0, 0
    threads_per_core = layout.threads_per(TopologyLevel.CORE)
    node, nodes = slot.get(TopologyLevel.SOCKET), 1
    if dies_are_nodes:
        nodes = layout.count(TopologyLevel.DIE)
        node = node * nodes + slot.get(TopologyLevel.DIE)
    return apic_id, (threads_per_core - 1) << 8 | core, (nodes - 1) << 8 | node & 0xFF, 0


def _vendor_registers(vendor: str) -> tuple[int, int, int]:
    """EBX, ECX, EDX of leaf 0: the text reads in the order EBX, EDX, ECX."""
    ebx, edx, ecx = struct.unpack("<3I", vendor.encode("ascii"))
    return ebx, ecx, edx


def _descriptor_leaf(caches: CacheSet) -> CpuidLeaf:
    """Leaf 2: one byte a cache; AL counts the executions of CPUID it takes to read them all."""
    view = caches.descriptors
    edx = (
        descriptor(view, 1, CacheType.DATA) << 16
        | descriptor(view, 1, CacheType.INSTRUCTION) << 8
        | descriptor(view, 2, CacheType.UNIFIED)
    )
    return CpuidLeaf(2, 0, 1, 0, descriptor(view, 3, CacheType.UNIFIED), edx)


def _distinguished_levels(layout: ApicIdLayout) -> tuple[TopologyLevel, ...]:
    """The levels inside a package that leaf 0x1F names, innermost first."""
    optional = (TopologyLevel.MODULE, TopologyLevel.DIE)
    used = tuple(level for level in optional if layout.count(level) > 1)
    return (TopologyLevel.THREAD, TopologyLevel.CORE, *used)


def _topology_leaves(
    function: int, levels: tuple[TopologyLevel, ...], layout: ApicIdLayout
) -> Iterator[CpuidLeaf]:
    """Leaf 0xB or 0x1F: for each level the shift to, and the threads in, the unit around it."""
    around = (*levels[1:], TopologyLevel.SOCKET)
    for index, (level, outer) in enumerate(zip(levels, around, strict=True)):
        kind = _TOPOLOGY_TYPES[level]
        threads = layout.threads_per(outer)
        yield CpuidLeaf(function, index, layout.shift(outer), threads, kind << 8 | index, 0)
    yield CpuidLeaf(function, len(levels), 0, 0, len(levels), 0)


def _processor_trace_leaves(word: int) -> Iterator[CpuidLeaf]:
    """Leaf 0x14 with what every CPU since Ice Lake has (Intel SDM vol. 3C, 33.3.1)."""
    filters, outputs = 0b1111, 0b111
    address_ranges, mtc_periods = 2, 0x249
    cycle_thresholds, psb_frequencies = 0x1FFF, 0x3F
    yield CpuidLeaf(0x14, 0, 1, filters, outputs | word, 0)
    yield CpuidLeaf(
        0x14, 1, address_ranges | mtc_periods << 16, cycle_thresholds | psb_frequencies << 16, 0, 0
    )


def _amx_leaves() -> Iterator[CpuidLeaf]:
    """Leaves 0x1D and 0x1E: palette 1, and the multiplier (Intel SDM vol. 1, 18.2)."""
    total_bytes, tile_bytes, row_bytes, tiles, rows = 8192, 1024, 64, 8, 16
    yield CpuidLeaf(0x1D, 0, 1, 0, 0, 0)
    yield CpuidLeaf(0x1D, 1, total_bytes | tile_bytes << 16, row_bytes | tiles << 16, rows, 0)
    max_k, max_n = 16, 64
    yield CpuidLeaf(0x1E, 0, 0, max_k | max_n << 8, 0, 0)


def _address_sizes(identity: CpuIdentity, words: Mapping[str, int]) -> int:
    """Leaf 0x80000008's EAX: bits of physical, linear and guest-physical addresses."""
    linear = 0
    if words.get("80000001.EDX", 0) & LONG_MODE:
        linear = 57 if words.get("7.0.ECX", 0) & LA57 else 48
    return identity.phys_bits | linear << 8 | identity.guest_phys_bits << 16


def _package_size(layout: ApicIdLayout) -> int:
    """Leaf 0x80000008's ECX: threads of a package less one, and the bits of an APIC id in it."""
    threads = layout.threads_per(TopologyLevel.SOCKET)
    if threads == 1:
        return 0
    return min(threads - 1, 0xFF) | layout.shift(TopologyLevel.SOCKET) << 12
