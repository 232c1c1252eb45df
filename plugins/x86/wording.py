"""What QEMU says of x86 CPUs that cannot be plugged, from an error's facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpufw.core.topology import Topology
from cpufw_x86.apicid import X86_LEVELS, ApicIdLayout


def no_such_place(topology: Topology, facts: Mapping[str, Any]) -> str:
    """An APIC id that no slot has, taken apart."""
    apic_id = facts["arch_id"]
    positions = ApicIdLayout.of(topology).positions(apic_id)
    place = ", ".join(
        f"{level.value}: {position}" for level, position in zip(X86_LEVELS, positions, strict=True)
    )
    return f"Invalid CPU [{place}] with APIC ID {apic_id}, valid index range 0:{facts['last']}"


def contradiction(topology: Topology, facts: Mapping[str, Any]) -> str:  # noqa: ARG001
    """An id that is not the one of the slot with this APIC id."""
    name = facts["property"]
    return (
        f"property {name}: {facts['value']} doesn't match set apic-id: {facts['arch_id']:#x} "
        f"({name}: {facts['there']})"
    )
