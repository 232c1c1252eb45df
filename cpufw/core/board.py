"""What surrounds a machine's CPUs: the protocol, and the board that is none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cpufw.errors import GuestError, ModelError, StateError

if TYPE_CHECKING:
    from pathlib import Path

    from cpufw.core.disk import Disk
    from cpufw.core.hotplug import Slot
    from cpufw.core.machine import Machine
    from cpufw.core.statistics import Statistic


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

    def show_devices(self) -> None:
        """Put its devices and its memory into the machine's tree; the boot CPUs are there."""

    @property
    def memory_size(self) -> int:
        """Bytes of RAM; 0 without any."""
        ...

    def cpu_plugged(self, slot: Slot, hotplugged: bool) -> None:
        """The CPU of `slot` is realized: let it run and, if hot-plugged, tell the guest."""

    def cpu_unplug_request(self, slot: Slot) -> None:
        """Ask the guest to give up the CPU of `slot`."""

    def cpu_unplug_withdraw(self, slot: Slot) -> bool:
        """Take back the request; False if the guest has seen it already."""
        ...

    def cpu_unplugged(self, slot: Slot) -> None:
        """The guest gave up the CPU of `slot`: stop it."""

    def node_of(self, slot: Slot) -> int | None:
        """The NUMA node of `slot`; None where the machine has no nodes."""
        ...

    def thread_id(self, slot: Slot) -> int:
        """The host's number of the thread that runs the CPU of `slot`; 0 if none does."""
        ...

    def ospm_status(self) -> list[tuple[Slot, int, int]]:
        """Source event and status of the guest's last ACPI _OST, for each slot; none without."""
        ...

    def block_devices(self) -> list[Disk]:
        """The disks, in the order in which the guest finds them."""
        ...

    def statistics(self, slot: Slot | None = None) -> list[Statistic]:
        """What the accelerator counts of the guest, or of the CPU of `slot`; may be nothing."""
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

    def registers(self, slot: Slot) -> dict[str, int]:
        """Values of registers of the CPU of `slot`, by name; `pc` is one. Raises `GuestError`."""
        ...

    def registers_text(self, slot: Slot) -> str:
        """All of its registers, for people. Raises `GuestError`."""
        ...

    def read_memory(self, slot: Slot, address: int, size: int, physical: bool = False) -> bytes:
        """`size` bytes of guest memory, fewer where it ends. Raises `GuestError`.

        From the address as the CPU of `slot` sees it, or from a physical one.
        """
        ...

    def disassemble(
        self, slot: Slot, address: int, count: int, physical: bool = False
    ) -> list[tuple[int, bytes, str]]:
        """Address, code and text of `count` instructions, fewer where memory ends."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """In this block no vCPU runs. Raises `GuestError` if one is stuck."""
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

    def show_devices(self) -> None:
        """There are none."""

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

    def node_of(self, slot: Slot) -> int | None:  # noqa: ARG002 - the protocol's name
        """There is no memory to be near to."""
        return None

    def thread_id(self, slot: Slot) -> int:  # noqa: ARG002 - the protocol's name
        """Nothing runs."""
        return 0

    def ospm_status(self) -> list[tuple[Slot, int, int]]:
        """There is no guest."""
        return []

    def block_devices(self) -> list[Disk]:
        """There are none."""
        return []

    def statistics(self, slot: Slot | None = None) -> list[Statistic]:  # noqa: ARG002
        """Nothing is counted."""
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
    memory_size = 0

    def pause(self) -> None:
        """Nothing runs."""

    def resume(self) -> None:
        """Nothing is paused."""

    def reset(self) -> None:
        """Nothing has begun; observers are told all the same."""
        self._machine.notify("RESET", guest=False, reason="host-qmp-system-reset")

    def nmi(self) -> None:
        """Nothing can be interrupted."""

    def save(self, path: str | Path, *, compress: bool = False) -> None:  # noqa: ARG002
        """Raise `StateError`: there is nothing to save."""
        raise StateError(f"machine type {self._machine.machine_type.name} has no guest to save")

    def powerdown(self) -> None:
        """Nobody is there to see it; observers are told all the same."""
        self._machine.notify("POWERDOWN")

    def describe(self) -> str:
        """No CPU does anything here."""
        return ""

    def registers(self, slot: Slot) -> dict[str, int]:  # noqa: ARG002 - the protocol's name
        """Raise `GuestError`: nothing runs, so registers hold nothing."""
        raise self._no_guest()

    def registers_text(self, slot: Slot) -> str:  # noqa: ARG002 - the protocol's name
        """Raise `GuestError`."""
        raise self._no_guest()

    def read_memory(
        self,
        slot: Slot,  # noqa: ARG002 - the protocol's names
        address: int,  # noqa: ARG002
        size: int,  # noqa: ARG002
        physical: bool = False,  # noqa: ARG002
    ) -> bytes:
        """Raise `GuestError`: there is no memory."""
        raise self._no_guest()

    def disassemble(
        self,
        slot: Slot,  # noqa: ARG002 - the protocol's names
        address: int,  # noqa: ARG002
        count: int,  # noqa: ARG002
        physical: bool = False,  # noqa: ARG002
    ) -> list[tuple[int, bytes, str]]:
        """Raise `GuestError`: there is no code."""
        raise self._no_guest()

    def held(self) -> AbstractContextManager[None]:
        """No vCPU ever runs."""
        return nullcontext()

    def _no_guest(self) -> GuestError:
        name = self._machine.machine_type.name
        return GuestError(f"machine type {name} has no guest to look into")

    def report(self) -> list[str]:
        """Nothing ran."""
        return []

    def close(self) -> None:
        """Nothing to give back."""
