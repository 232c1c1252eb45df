"""How many vCPUs a machine can have here, and with which APIC ids."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from pathlib import Path

from cpufw.errors import AcceleratorError, TopologyError
from cpufw_x86.irqchip import XAPIC_IDS
from cpufw_x86.kvm import X86KVM

_OTHER_FILES = 64  # what else a machine opens: the VM, its memory, disks, sockets


def check_vcpus(kvm: X86KVM, apic_ids: Sequence[int], has_x2apic: Callable[[], bool]) -> None:
    """Raise unless KVM and this process can have a vCPU of each of the `apic_ids`.

    `has_x2apic`: whether the CPU model has it, asked only where it matters. Raises `TopologyError`
    for ids that the model's APIC does not reach, `AcceleratorError` for what this host's KVM or
    this process cannot have. The process's soft limit of open files is raised where it is too low.
    """
    count, highest = len(apic_ids), max(apic_ids)
    if highest >= XAPIC_IDS and not has_x2apic():
        raise TopologyError(
            f"the topology has APIC ids up to {highest}, and without x2apic a CPU reaches no more "
            f"than {XAPIC_IDS - 1}; use a CPU model with x2apic, or fewer CPUs"
        )
    most = kvm.check_extension("KVM_CAP_MAX_VCPUS")
    if count > most:
        raise AcceleratorError(
            f"{count} vCPUs were asked for (--smp, maxcpus counts), and this host's KVM allows "
            f"{most} in a VM (KVM_CAP_MAX_VCPUS)"
        )
    # KVM before Linux 4.6 has no limit of its own for ids.
    ids = kvm.check_extension("KVM_CAP_MAX_VCPU_ID") or most
    if highest >= ids:
        raise AcceleratorError(
            f"the topology's APIC ids go up to {highest}, and this host's KVM allows ids below "
            f"{ids} (KVM_CAP_MAX_VCPU_ID); numbers of cores and threads that are powers of two "
            "leave no gaps between ids"
        )
    _reserve_files(count)


def _reserve_files(vcpus: int) -> None:
    """Each vCPU is an open file, and most systems start a process with 1,024 at most."""
    needed = len(list(Path("/proc/self/fd").iterdir())) + vcpus + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise AcceleratorError(
            f"{vcpus} vCPUs need {needed} open files, and this process may have {hard}; raise the "
            "limit (ulimit -n, LimitNOFILE= of a systemd unit)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
