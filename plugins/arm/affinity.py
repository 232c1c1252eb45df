"""The topology of Arm machines, and the affinity that MPIDR shows."""

from __future__ import annotations

from cpufw.core.topology import SlotId, Topology, TopologyLevel

ARM_LEVELS = (
    TopologyLevel.SOCKET,
    TopologyLevel.CLUSTER,
    TopologyLevel.CORE,
    TopologyLevel.THREAD,
)

# What a GICv3 can address together: the target list of ICC_SGI1R_EL1 has 16 bits (GICv3 IHI 0069).
# A GICv2 serves eight CPUs in all, so it makes no difference there.
CPUS_PER_AFF0 = 16


def mpidr_affinity(topology: Topology, slot: SlotId) -> int:
    """Aff1 and Aff0 of the CPU in `slot`, as in MPIDR bits 15:0.

    As on QEMU's virt machines they follow the index of the CPU and not the clusters of the
    topology, which a guest learns from its firmware's tables.
    """
    index = topology.index(slot)
    return index // CPUS_PER_AFF0 << 8 | index % CPUS_PER_AFF0
