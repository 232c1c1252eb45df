"""What surrounds a machine's CPUs: the protocol, and the board that is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cpufw.errors import ModelError

if TYPE_CHECKING:
    from cpufw.core.hotplug import Slot
    from cpufw.core.machine import Machine


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    `reason` is one of `power-off`, `exit`, `reset`, `died`, `timeout`, `stopped`; `status` is
    the exit status it means for a command; `message` is a sentence for people.
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

    def start(self) -> None:
        """Let the guest run."""

    def stop(self) -> None:
        """Stop the guest for good."""

    def wait(self, timeout: float | None) -> Outcome:
        """Wait up to `timeout` seconds for the guest to end; `timeout` outcome if it has not."""
        ...

    def powerdown(self) -> None:
        """Press the power button."""

    def describe(self) -> str:
        """Registers and code of each CPU of a stopped machine."""
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

    def start(self) -> None:
        """Raise `ModelError`: there is nothing to run."""
        name = self._machine.machine_type.name
        raise ModelError(f"machine type {name} has no board to run a guest on")

    def stop(self) -> None:
        """Nothing runs."""

    def wait(self, timeout: float | None) -> Outcome:  # noqa: ARG002 - the protocol's name
        """A machine with no board has always stopped."""
        return Outcome("stopped")

    def powerdown(self) -> None:
        """Nothing is on."""

    def describe(self) -> str:
        """No CPU does anything here."""
        return ""

    def close(self) -> None:
        """Nothing to give back."""
