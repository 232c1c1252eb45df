"""What a QEMU without KVM cannot show of a CPU, put right in its answers.

Each function is one entry of docs/differences.md. The figures are the manuals': Intel SDM vol. 1,
13.5 and 18 for XSAVE; vol. 3C, 33.3.1 for processor trace.
"""

from __future__ import annotations

from collections.abc import Mapping

from cpufw_x86.cpuid import INDEXED_FUNCTIONS, Registers

Leaf = tuple[int, int]
Leaves = dict[Leaf, Registers]
ZERO: Registers = (0, 0, 0, 0)

SYSCALL = 1 << 11
AVX512F = 1 << 16
INTEL_PT = 1 << 25
AMX_TILE = 1 << 24
AVX10 = 1 << 19
INTEL_EBX = 0x756E6547

AVX512_SUBLEAVES: Leaves = {
    (0xD, 5): (64, 1088, 0, 0),
    (0xD, 6): (512, 1152, 0, 0),
    (0xD, 7): (1024, 1664, 0, 0),
}
AMX_SUBLEAVES: Leaves = {(0xD, 17): (64, 2752, 0b010, 0), (0xD, 18): (8192, 2816, 0b110, 0)}
TRACE_SUBLEAVES: Leaves = {
    (0x14, 0): (1, 0xF, 7, 0),
    (0x14, 1): (2 | 0x249 << 16, 0x3F << 16 | 0x1FFF, 0, 0),
}


def corrected(leaves: Mapping[Leaf, Registers], threads: int, apic_id: int) -> Leaves:
    """QEMU's answers with what TCG leaves out; `threads` are those of a package.

    Leaves out of range are not changed, though they repeat the highest basic one.
    """
    found = dict(leaves)
    _syscall(found)
    features = found.get((7, 0), ZERO)
    limit = leaves.get((0, 0), ZERO)[0]
    if features[1] & AVX512F and limit >= 0xD:
        _vector_state(found, amx=bool(features[3] & AMX_TILE))
    if features[1] & INTEL_PT and limit >= 0x14:
        found |= TRACE_SUBLEAVES
    if found.get((7, 1), ZERO)[3] & AVX10 and limit >= 0x24:
        _avx10_version(found)
    if threads > 0xFF:
        _many_threads(found, apic_id)
    return found


def in_range(function: int, leaves: Mapping[Leaf, Registers]) -> bool:
    """Whether a CPU with these leaves has `function`; otherwise it answers as the highest basic."""
    base = function & 0xC0000000
    if base == 0x40000000:
        return function <= 0x40000001
    limit = leaves.get((base, 0), ZERO)[0]
    return base <= function <= limit or function == 0


def repeated(leaf: Leaf, leaves: Mapping[Leaf, Registers]) -> Leaf:
    """The leaf that one out of range repeats: the highest basic one, with the same index."""
    highest = leaves.get((0, 0), ZERO)[0]
    return highest, leaf[1] if highest in INDEXED_FUNCTIONS else 0


def _syscall(leaves: Leaves) -> None:
    """The guest asks in real mode, and an Intel CPU shows SYSCALL in 64-bit mode only."""
    if in_range(0x80000001, leaves) and leaves.get((0, 0), ZERO)[1] == INTEL_EBX:
        eax, ebx, ecx, edx = leaves[0x80000001, 0]
        long_mode = edx >> 29 & 1
        leaves[0x80000001, 0] = eax, ebx, ecx, edx | long_mode * SYSCALL


def _vector_state(leaves: Leaves, amx: bool) -> None:
    """TCG has no AVX-512 and no AMX, so leaf 0xD lacks their components."""
    eax, ebx, size, edx = leaves[0xD, 0]
    optional, compacted, *xss = leaves[0xD, 1]
    leaves |= AVX512_SUBLEAVES
    eax |= 0b111 << 5
    size = max(size, 1664 + 1024)
    compacted += 64 + 512 + 1024
    if amx:
        leaves |= AMX_SUBLEAVES
        eax |= 0b11 << 17
        size = 2816 + 8192
        compacted = -(-compacted // 64) * 64 + 64 + 8192
    leaves[0xD, 0] = eax, ebx, size, edx
    leaves[0xD, 1] = optional, compacted, xss[0], xss[1]


def _avx10_version(leaves: Leaves) -> None:
    """QEMU knows AVX10's version from its host's KVM alone; the models that have it have 1."""
    eax, ebx, ecx, edx = leaves[0x24, 0]
    leaves[0x24, 0] = eax, ebx | 1, ecx, edx


def _many_threads(leaves: Leaves, apic_id: int) -> None:
    """A package's threads have 8 bits in two leaves; QEMU lets more run into what is above."""
    if (1, 0) in leaves:
        eax, ebx, ecx, edx = leaves[1, 0]
        leaves[1, 0] = eax, (apic_id & 0xFF) << 24 | 0xFF << 16 | ebx & 0xFFFF, ecx, edx
    if (0x80000008, 0) in leaves:
        eax, ebx, ecx, edx = leaves[0x80000008, 0]
        leaves[0x80000008, 0] = eax, ebx, ecx & 0xF000 | 0xFF, edx
