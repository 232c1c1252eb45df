"""From a description to a machine with the same CPUs and devices, which has not begun."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpufw.core.model import CPURequest
from cpufw.errors import StateError

if TYPE_CHECKING:
    from cpufw.core.accel import Accelerator
    from cpufw.core.machine import Machine
    from cpufw.snapshot.description import MachineDescription
    from cpufw.snapshot.machine import MakeMachine

NewMachine = Callable[..., "Machine"]
"""`Framework.machine`."""


def from_file(
    new_machine: NewMachine, accel: str | Accelerator | None, options: Mapping[str, Any]
) -> MakeMachine:
    """Machines with the files of the host that they had; `options` of the board go before."""

    def make(saved: MachineDescription, without: Sequence[str]) -> Machine:
        return _make(new_machine, saved, without, accel, {**saved.files, **options})

    return make


def from_elsewhere(
    new_machine: NewMachine, accel: str | Accelerator | None, options: Mapping[str, Any]
) -> MakeMachine:
    """Machines with the files that `options` name, as many as they had, and no others."""

    def make(saved: MachineDescription, without: Sequence[str]) -> Machine:
        for name, there in saved.files.items():
            here = options.get(name) or ()
            if isinstance(there, list) and len(there) != len(here):
                raise StateError(
                    f"the guest has {len(there)} {name} and {len(here)} are named here: "
                    "the destination has to name each, in the same order"
                )
        return _make(new_machine, saved, without, accel, options)

    return make


def _make(
    new_machine: NewMachine,
    saved: MachineDescription,
    without: Sequence[str],
    accel: str | Accelerator | None,
    options: Mapping[str, Any],
) -> Machine:
    properties = {**saved.properties, **dict.fromkeys(without, False)}
    given = {name: value for name, value in options.items() if value is not None}
    board = {**saved.board, **given, "incoming": True}
    cpu = CPURequest(saved.model, properties=properties)
    try:
        return new_machine(saved.machine, cpu, saved.smp, accel, saved.arch, **board)
    except (TypeError, ValueError, OverflowError) as error:
        raise StateError(f"no machine can be made as it was saved: {error}") from None
