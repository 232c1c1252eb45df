"""From an identity and a place in the machine to what CPUID answers there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from cpufw.core.topology import SlotId, Topology
from cpufw_x86.apicid import ApicIdLayout
from cpufw_x86.caches import CacheSet
from cpufw_x86.cpuid import (
    CENTAUR_BASE,
    EXTENDED_BASE,
    EXTENDED_TOPOLOGY_FUNCTIONS,
    HYPERVISOR_BASE,
    KVM_BASE_BESIDE_HYPERV,
    CpuidLeaf,
    CpuidTable,
)
from cpufw_x86.cpuid_leaves import (
    basic_leaves,
    centaur_leaves,
    core_registers,
    extended_leaves,
    kvm_leaves,
)
from cpufw_x86.cpuid_words import derived_words, topology_words
from cpufw_x86.identity import CpuIdentity

_NO_LIMIT = 0xFFFFFFFF


class CpuidTemplate:
    """The CPUID of every CPU of one identity in one topology; `for_apic_id` fills in the id.

    Building one costs much more than asking it; `synthesise` keeps the last few.
    """

    def __init__(self, identity: CpuIdentity, topology: Topology) -> None:
        self.layout = ApicIdLayout.of(topology)
        self._table = CpuidTable(_leaves(identity, self.layout))
        self._identification = self._table.get((1, 0))  # absent where the model's level is 0
        self._topology_leaves = tuple(
            leaf[:5]
            for leaf in self._table.values()
            if leaf.function in EXTENDED_TOPOLOGY_FUNCTIONS
        )
        self._has_core_leaf = (0x8000001E, 0) in self._table
        self._dies_are_nodes = identity.dies_are_nodes

    def for_apic_id(self, apic_id: int) -> CpuidTable:
        """What CPUID answers on the CPU with this APIC id."""
        return self._table.replaced(self._patched(apic_id))

    def _patched(self, apic_id: int) -> Iterator[CpuidLeaf]:
        """The leaves that tell the CPUs of a machine apart."""
        if self._identification:
            function, index, eax, ebx, ecx, edx = self._identification
            yield CpuidLeaf(function, index, eax, ebx | (apic_id & 0xFF) << 24, ecx, edx)
        for up_to_ecx in self._topology_leaves:
            yield CpuidLeaf(*up_to_ecx, apic_id)
        if self._has_core_leaf:
            registers = core_registers(self.layout, apic_id, self._dies_are_nodes)
            yield CpuidLeaf(0x8000001E, 0, *registers)


def synthesise(identity: CpuIdentity, topology: Topology, slot: SlotId) -> CpuidTable:
    """What CPUID answers on a CPU of this identity in `slot` of `topology`.

    Only what the model says: nothing is filtered by what an accelerator can do. Leaves of zeros
    are left out, since a missing leaf reads as zeros.
    """
    template = _template(identity, topology)
    return template.for_apic_id(template.layout.apic_id(slot))


@lru_cache(maxsize=32)
def _template(identity: CpuIdentity, topology: Topology) -> CpuidTemplate:
    return CpuidTemplate(identity, topology)


def _leaves(identity: CpuIdentity, layout: ApicIdLayout) -> Iterator[CpuidLeaf]:
    words = derived_words(identity.vendor, identity.words)
    words = topology_words(identity.vendor, words, layout.topology)
    caches = CacheSet.of(identity.caches, identity.l3_cache)
    limited = [(identity.level, basic_leaves(identity, words, caches, layout))]
    if identity.hyperv is not None:
        limited.append((_NO_LIMIT, identity.hyperv.leaves()))
    if identity.kvm and identity.hyperv is None:
        limited.append((_NO_LIMIT, kvm_leaves(words, identity.tsc_khz, HYPERVISOR_BASE)))
    elif identity.kvm:  # QEMU's rule: who finds KVM there is not told the frequency
        limited.append((_NO_LIMIT, kvm_leaves(words, 0, KVM_BASE_BESIDE_HYPERV)))
    if identity.xlevel >= EXTENDED_BASE:
        limited.append((identity.xlevel, extended_leaves(identity, words, caches, layout)))
    if identity.xlevel2 >= CENTAUR_BASE:
        limited.append((identity.xlevel2, centaur_leaves(identity, words)))
    always = {(1, 0), (0x8000001E, 0)}  # never zeros on every CPU
    for limit, leaves in limited:
        for leaf in leaves:
            wanted = any(leaf.registers) or (leaf.function, leaf.index) in always
            if leaf.function <= limit and wanted:
                yield leaf
