"""What a plugin says about an architecture, an accelerator and a machine type it brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.core.model import AliasRule
from cpufw.core.topology import SlotId, Topology, TopologyLevel

if TYPE_CHECKING:
    from cpufw.core.accel import Accelerator
    from cpufw.core.algebra import ModelRules
    from cpufw.core.board import Board
    from cpufw.core.capture import CaptureRules
    from cpufw.core.cpu import CPUState
    from cpufw.core.machine import Machine


@dataclass(frozen=True)
class Architecture:
    """An architecture: its name, where its definitions are, and the class of its CPUs.

    `cpu_base` returns the abstract `CPUState` subclass that every model's class extends; it is
    called when the first class is built, so that naming models costs no import. `arch_id` gives
    the architecture's own id of a slot (the APIC id on x86). `rules` returns how identities of
    this architecture compare; without it only equal identities do. `capture` returns how hosts of
    this architecture are captured; without it they are not. Unless `case_sensitive`, models are
    found by their names in any case.
    """

    name: str
    description: str
    definitions: Path
    cpu_base: Callable[[], type[CPUState]]
    levels: Sequence[TopologyLevel]
    arch_id: Callable[[Topology, SlotId], int]
    rules: Callable[[], ModelRules] | None = None
    capture: Callable[[], CaptureRules] | None = None
    case_sensitive: bool = True

    @cached_property
    def place_names(self) -> frozenset[str]:
        """The properties that say where a CPU stands: `socket-id` and the like."""
        return frozenset(level.id_name for level in self.levels)


@dataclass(frozen=True)
class AcceleratorType:
    """A way to run guests of one architecture; `open` raises `AcceleratorError` if it cannot."""

    name: str
    arch: str
    description: str
    open: Callable[[], Accelerator]


@dataclass(frozen=True)
class CompatProperty:
    """A property that a machine type sets on a CPU type, so that an old machine stays as it was.

    `type_name` is a CPU type or an abstract base (`x86_64-cpu`); as in QEMU a model's property is
    changed only when its unversioned name was asked for.
    """

    type_name: str
    name: str
    value: str


@dataclass(frozen=True)
class PlugUnit:
    """What a machine type plugs at once where that is more than a thread: all of one `level`.

    `type_name` is what the unit of a model is called, with `{model}` in it; `ids` gives the ids
    that name a unit, from the slot of its first thread; those with only one value need not be
    given.
    """

    level: TopologyLevel
    type_name: str
    ids: Callable[[Topology, SlotId], dict[str, int]]


@dataclass(frozen=True)
class MachineType:
    """A kind of machine: what surrounds the CPUs, and how names and properties read there.

    `accel` names the accelerators tried when the user names none (`"kvm"`); None for a machine
    type that only describes CPUs. `demo` are the board options that run the demonstration guest,
    if there is one; it prints `cpu 0: word WORD HEX` for each feature word that it reads, then
    `cpu 0: online`. `can_unplug` is whether its guests can give a CPU back. CPUs come and go by
    threads, or by whole cores or sockets where there is a `plug_unit`. `slot_ids` gives the ids
    that name a slot where they are not its index at each level; those that tell it apart are
    enough to plug.
    """

    name: str
    arch: str
    description: str
    default_cpu: str
    max_cpus: int
    board: Callable[[Machine, Mapping[str, Any]], Board]
    alias: str | None = None
    alias_rule: AliasRule = AliasRule.FIRST
    compat: Sequence[CompatProperty] = ()
    demo: Mapping[str, Any] | None = None
    accel: str | None = "kvm"
    can_unplug: bool = True
    plug_unit: PlugUnit | None = None
    slot_ids: Callable[[Topology, SlotId], dict[str, int]] | None = None
