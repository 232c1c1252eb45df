"""The guest's run as users steer it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cpufw.core.board import Board, Outcome
from cpufw.core.hotplug import Hotplug
from cpufw.core.qom import Object

if TYPE_CHECKING:
    from pathlib import Path


class RunControl(Object):
    """A machine whose `board` runs a guest; `hotplug` keeps what observers raise."""

    board: Board
    hotplug: Hotplug

    def __init__(self) -> None:
        super().__init__()
        self.observers: list[Callable[[str, Mapping[str, Any]], None]] = []
        """Called with name and data of each event of the run, in QMP's words; see `notify`."""

    def start(self) -> None:
        """Let the guest run."""
        self.board.start()

    def wait(self, timeout: float | None = None) -> Outcome:
        """Wait up to `timeout` seconds for the guest to end."""
        return self.board.wait(timeout)

    def stop(self) -> None:
        """Stop the guest for good; what it was doing is lost."""
        self.board.stop()

    def describe(self) -> str:
        """What each CPU was doing: registers and code; for a machine that is stopped."""
        return self.board.describe()

    def report(self) -> list[str]:
        """What there is to say of the run beyond its outcome, a sentence each."""
        return self.board.report()

    @property
    def status(self) -> str:
        """What the guest does: `prelaunch`, `running`, `paused`, `shutdown`, `internal-error`."""
        return self.board.status

    def pause(self) -> None:
        """Hold the CPUs; the guest's clock stands still. Raises `GuestError` if one is stuck."""
        self.board.pause()

    def resume(self) -> None:
        """Let a paused guest go on."""
        self.board.resume()

    def reset(self) -> None:
        """Reset the machine: the guest begins again, with the CPUs that are plugged."""
        self.board.reset()

    def nmi(self) -> None:
        """Give every CPU a non-maskable interrupt."""
        self.board.nmi()

    def save(self, path: str | Path, *, compress: bool = False) -> None:
        """Save the machine in a file, running or paused; the guest is held meanwhile.

        With `compress` smaller (zstd). Raises `StateError`; a file that was at `path` is then
        still there in full. `cpufw.load_machine(path)` makes it again.
        """
        self.board.save(path, compress=compress)

    def powerdown(self) -> None:
        """Press the power button; whether the guest listens is its own matter."""
        self.board.powerdown()

    def notify(self, event: str, **data: Any) -> None:
        """Tell the observers: `notify("RESET", guest=True, reason="guest-reset")`.

        `STOP`, `RESUME`, `RESET`, `POWERDOWN`, `SHUTDOWN`, `GUEST_PANICKED`, `ACPI_DEVICE_OST`.
        """
        for observer in tuple(self.observers):
            try:
                observer(event, data)
            except Exception as error:  # an observer must not stop the machine half way
                self.hotplug.listener_errors.append(error)
