"""How the end of a run is told: QMP's events for each `Outcome`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpufw.core.board import Outcome
    from cpufw.core.machine import Machine

GUEST_RESET, HOST_RESET = "guest-reset", "host-qmp-system-reset"
"""Who asked for a reset, in QMP's words (its type `ShutdownCause`)."""

_CAUSES = {
    "power-off": "guest-shutdown",
    "exit": "guest-shutdown",
    "reset": GUEST_RESET,
    "panicked": "guest-panic",
}


def tell_end(machine: Machine, outcome: Outcome, cause: str = "") -> None:
    """Notify the observers; `cause` is QMP's `ShutdownCause` where the outcome is not enough."""
    cause = cause or _CAUSES.get(outcome.reason, "")
    if outcome.reason == "died":
        machine.notify("STOP")
    if cause:
        machine.notify("SHUTDOWN", guest=cause.startswith("guest-"), reason=cause)


def status_of(outcome: Outcome) -> str:
    """What a guest that ended is called in QMP (its type `RunState`)."""
    states = {"died": "internal-error", "migrated": "postmigrate"}
    return states.get(outcome.reason, "shutdown")
