"""What surrounds a machine's CPUs: the protocol, and the board that is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cpufw.errors import ModelError, StateError

if TYPE_CHECKING:
    from pathlib import Path

    from cpufw.core.hotplug import Slot
    from cpufw.core.machine import Machine


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    `reason` is one of `power-off`, `exit`, `reset`, `died`, `timeout`, `stopped`, `migrated`;
    `status` is the exit status it means for a command; `message` is a sentence for people.
    """

    reason: str
    status: int = 0
    message: str = ""


class Board(Protocol):
    """What surrounds the CPUs: memory, devices, and the way the guest is told of a CPU."""

    def cpu_plugged(self, slot: Slot, hotplugged: bool) -> None:
        """The CPU of `slot` is realized: let it run and, if hot-plugged, tell the guest."""

    def cpu_unplug_request(self, slot: Slot) -> None:
        """Ask the guest to give up the CPU of `slot`."""

    def cpu_unplug_withdraw(self, slot: Slot) -> bool:
        """Take back the request; False if the guest has seen it already."""
        ...

    def cpu_unplugged(self, slot: Slot) -> None:
        """The guest gave up the CPU of `slot`: stop it."""

    def thread_id(self, slot: Slot) -> int:
        """The host's number of the thread that runs the CPU of `slot`; 0 if none does."""
        ...

    def ospm_status(self) -> list[tuple[Slot, int, int]]:
        """Source event and status of the guest's last ACPI _OST, for each slot; none without."""
        ...

    def start(self) -> None:
        """Let the guest run."""

    def stop(self) -> None:
        """Stop the guest for good."""

    def wait(self, timeout: float | None) -> Outcome:
        """Wait up to `timeout` seconds for the guest to end; `timeout` outcome if it has not."""
        ...

    @property
    def status(self) -> str:
        """What the guest does: `prelaunch`, `running`, `paused`, `shutdown`, `internal-error`."""
        ...

    def pause(self) -> None:
        """Hold the CPUs and the guest's clock."""

    def resume(self) -> None:
        """Let them go on."""

    def reset(self) -> None:
        """Begin again from the start, with the CPUs that are plugged."""

    def nmi(self) -> None:
        """Give every CPU a non-maskable interrupt."""

    def save(self, path: str | Path, *, compress: bool = False) -> None:
        """Save the guest in a file and let it go on."""

    def powerdown(self) -> None:
        """Press the power button."""

    def describe(self) -> str:
        """Registers and code of each CPU of a stopped machine."""
        ...

    def report(self) -> list[str]:
        """What there is to say of the run beyond its outcome, a sentence each."""
        ...

    def close(self) -> None:
        """Give back everything."""


class BareBoard:
    """No board and no guest: plugged CPUs stay present, unplugged ones leave at once."""

    def __init__(self, machine: Machine, options: Mapping[str, Any]) -> None:
        if options:
            raise ModelError(
                f"machine type {machine.machine_type.name} takes no {', '.join(options)}"
            )
        self._machine = machine

    def cpu_plugged(self, slot: Slot, hotplugged: bool) -> None:
        """Nothing to tell: there is no guest."""

    def cpu_unplug_request(self, slot: Slot) -> None:
        """There is no guest to ask."""
        self._machine.eject(slot)

    def cpu_unplug_withdraw(self, slot: Slot) -> bool:  # noqa: ARG002 - the protocol's name
        """Nobody was asked."""
        return False

    def cpu_unplugged(self, slot: Slot) -> None:
        """Nothing runs."""

    def thread_id(self, slot: Slot) -> int:  # noqa: ARG002 - the protocol's name
        """Nothing runs."""
        return 0

    def ospm_status(self) -> list[tuple[Slot, int, int]]:
        """There is no guest."""
        return []

    def start(self) -> None:
        """Raise `ModelError`: there is nothing to run."""
        name = self._machine.machine_type.name
        raise ModelError(f"machine type {name} has no board to run a guest on")

    def stop(self) -> None:
        """Nothing runs."""

    def wait(self, timeout: float | None) -> Outcome:  # noqa: ARG002 - the protocol's name
        """A machine with no board has always stopped."""
        return Outcome("stopped")

    status = "prelaunch"

    def pause(self) -> None:
        """Nothing runs."""

    def resume(self) -> None:
        """Nothing is paused."""

    def reset(self) -> None:
        """Nothing has begun."""

    def nmi(self) -> None:
        """Nothing can be interrupted."""

    def save(self, path: str | Path, *, compress: bool = False) -> None:  # noqa: ARG002
        """Raise `StateError`: there is nothing to save."""
        raise StateError(f"machine type {self._machine.machine_type.name} has no guest to save")

    def powerdown(self) -> None:
        """Nothing is on."""

    def describe(self) -> str:
        """No CPU does anything here."""
        return ""

    def report(self) -> list[str]:
        """Nothing ran."""
        return []

    def close(self) -> None:
        """Nothing to give back."""
