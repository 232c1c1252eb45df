"""What QMP clients are told where cpufw's own sentence is another: QEMU's texts, by reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cpufw.errors import ReasonedError

if TYPE_CHECKING:
    from cpufw.core.arch import Architecture, Wording
    from cpufw.core.topology import Topology

TEXTS: Mapping[str, Wording] = {
    "boot-cpu": "Boot CPU is unpluggable",
    "cannot-unplug": "CPU hot unplug not supported on this machine",
    "duplicate-id": "Duplicate device ID '{id}'",
    "invalid-id": "Parameter 'id' expects an identifier",
    "no-property": "Property '{owner}.{property}' not found",
    "not-pluggable": "Parameter 'driver' expects a pluggable device type",
    "not-set": "CPU {property} is not set",
    "out-of-range": "Invalid CPU {property}: {value} must be in range 0:{last}",
    "out-of-type": "Parameter '{property}' expects {type}_t",
    "read-only": "Property '{owner}.{property}' is not writable",
    "wrong-node": "invalid node-id, must be {expected}",
    "wrong-threads": "invalid nr-threads {threads}, must be {expected}",
    "wrong-type": "Invalid CPU type, expected cpu type: '{expected}'",
}
"""By an error's `reason`; an architecture's own are in `Architecture.wording`."""


def worded(error: ReasonedError, architecture: Architecture, topology: Topology) -> str:
    """QEMU's text for `error` on this architecture, cpufw's sentence where it has none."""
    wording = architecture.wording.get(error.reason) or TEXTS.get(error.reason)
    if wording is None:
        return str(error)
    if callable(wording):
        return wording(topology, error.facts)
    try:
        return wording.format_map(error.facts)
    except KeyError:  # the same reason for something else than a CPU
        return str(error)
