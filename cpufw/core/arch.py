"""What a plugin says about an architecture, an accelerator and a machine type it brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.core.model import AliasRule
from cpufw.core.qom import Property
from cpufw.core.topology import SlotId, Topology, TopologyLevel

if TYPE_CHECKING:
    from cpufw.core.accel import Accelerator
    from cpufw.core.algebra import ModelRules
    from cpufw.core.board import Board
    from cpufw.core.capture import CaptureRules
    from cpufw.core.cpu import CPUState
    from cpufw.core.machine import Machine

Wording = str | Callable[["Topology", Mapping[str, Any]], str]
"""A text with an error's `facts` in it (`{index}`), or what makes one of them."""

NO_ID = (1 << 32) - 1
"""The value of an id that nobody gave, as QEMU shows it."""


@dataclass(frozen=True)
class Architecture:
    """An architecture: its name, where its definitions are, and the class of its CPUs.

    `cpu_base` returns the abstract `CPUState` subclass that every model's class extends; it is
    called when the first class is built, so that naming models costs no import. `arch_id` gives
    the architecture's own id of a slot (the APIC id on x86). `rules` returns how identities of
    this architecture compare; without it only equal identities do. `capture` returns how hosts of
    this architecture are captured; without it they are not. Unless `case_sensitive`, models are
    found by their names in any case. `arch_id_name` is the property that says `arch_id`
    (`apic-id`), and `has_node_id` whether CPUs have `node-id`, their NUMA node. `wording` is what
    QEMU says of an error on this architecture, by the error's `reason`, where that is its own (see
    `cpufw/monitor/wording.py`).
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
    arch_id_name: str = ""
    has_node_id: bool = False
    wording: Mapping[str, Wording] = field(default_factory=dict)

    @cached_property
    def place_properties(self) -> Mapping[str, Property]:
        """The properties that say where a CPU stands: `socket-id` and the like."""
        places = [
            Property(level.id_name, "int32", f"place in the topology: {level.value}", -1)
            for level in self.levels
        ]
        if self.arch_id_name:
            name = self.arch_id_name
            places.append(Property(name, "uint32", "place in the topology, as one number", NO_ID))
        if self.has_node_id:
            places.append(Property("node-id", "int32", "NUMA node", -1))
        return {spec.name: spec for spec in places}

    @property
    def place_names(self) -> Set[str]:
        """Their names."""
        return self.place_properties.keys()


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
    that name a unit, from the slot of its first thread, where they are not its index at each level;
    those with only one value need not be given.
    """

    level: TopologyLevel
    type_name: str
    ids: Callable[[Topology, SlotId], dict[str, int]] | None = None


@dataclass(frozen=True)
class MachineType:
    """A kind of machine: what surrounds the CPUs, and how names and properties read there.

    `accel` names the accelerators tried when the user names none (`"kvm"`); None for a machine
    type that only describes CPUs. `demo` are the board options that run the demonstration guest,
    if there is one; it prints `cpu 0: word WORD HEX` for each feature word that it reads, then
    `cpu 0: online`. `can_plug` is whether a monitor's clients can add CPUs, `can_unplug` whether
    its guests can give one back. CPUs come and go by threads, or by whole cores or sockets where
    there is a `plug_unit`. `slot_ids` gives the ids
    that name a slot where they are not its index at each level; those that tell it apart are
    enough to plug. `bases` are QEMU's types between this machine's and `machine`, nearest first;
    `devices` the types of the devices that its board can have, and what each extends. `runs` are
    the families of described machine types (`pc-q35`, of which `pc-q35-7.2` is a version) whose
    guests can run on this one's board.
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
    can_plug: bool = True
    can_unplug: bool = True
    plug_unit: PlugUnit | None = None
    slot_ids: Callable[[Topology, SlotId], dict[str, int]] | None = None
    bases: Sequence[str] = ()
    devices: Mapping[str, str] = field(default_factory=dict)
    runs: Sequence[str] = ()
    ram_id: str = ""
    """What its RAM is called (`pc.ram`), if it has any."""
    hotpluggable_cpus: bool = True
    """Whether it can tell its places for CPUs."""
    acpi: bool = True
    numa_memory: bool = False
    """Whether a NUMA node's memory can be given as a size alone (QEMU's `-numa node,mem=`)."""
    deprecated: bool = False
