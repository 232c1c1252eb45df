"""A laboratory architecture: small enough to see through, no files, no guest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from cpufw.core.arch import Architecture, CompatProperty, MachineType, PlugUnit
from cpufw.core.board import BareBoard
from cpufw.core.cpu import CPUClass, CPUState
from cpufw.core.features import Feature, FeatureSet, FeatureTable
from cpufw.core.hotplug import HotplugEvent, Slot, Veto
from cpufw.core.machine import Machine
from cpufw.core.model import AliasRule, Catalogue, CPUModel
from cpufw.core.qom import Object, Property
from cpufw.core.registry import Registry
from cpufw.core.topology import SlotId, Topology, TopologyLevel, parse_smp

LEVELS = (TopologyLevel.SOCKET, TopologyLevel.CORE, TopologyLevel.THREAD)

TABLE = FeatureTable(
    "lab",
    [
        Feature("base", ("w0:0",)),
        Feature("wide", ("w0:1",), requires=("base",)),
        Feature("wider", ("w0:2",), requires=("wide",)),
        Feature("nested", ("w1:0",)),
        Feature("nested-fast", ("w1:1",), requires=("nested",)),
        Feature("clock", ("w1:2",), aliases={"qemu": ("klock", "lab-clock")}),
        Feature("tied", ("w1:3",), migratable=False),
    ],
)


def model(name: str, features: str, **facts: Any) -> CPUModel:
    return CPUModel("lab", name, facts.pop("family", name), TABLE.set(features.split()), **facts)


CATALOGUE = Catalogue(
    "lab",
    TABLE,
    [
        model("one", "base wide", alias_of="one-v1", identity={"speed": 7}),
        model("one-v1", "base wide", family="one", version=1, identity={"speed": 7}),
        model("one-v2", "base wide wider", family="one", version=2, identity={"speed": 8}),
        model("one-fast", "base wide wider", family="one", alias_of="one-v2"),
        model("two", "base nested", companions={"nested": TABLE.set(["nested-fast"])}),
        model("empty", "", static=True),
        model("host", "", dynamic=True),
    ],
)


class LabCPU(CPUState):
    """A CPU that fails at the step named by `broken_step`."""

    type_name = "lab-cpu"
    extra_properties: ClassVar[Mapping[str, Property]] = {
        "speed": Property("speed", "uint32", "how fast", 0, low=1),
        "maker": Property("maker", "string", "who made it", ""),
    }
    broken_step: ClassVar[str] = ""
    parked: ClassVar[list[int]] = []

    def step(self, name: str) -> None:
        if self.broken_step == name:
            raise RuntimeError(f"{name} is broken")

    def _synthesise(self) -> None:
        self.step("synthesise")

    def _accelerate(self) -> FeatureSet:
        self.step("accelerate")
        assert self.expansion is not None
        features = self.expansion.features
        if self.machine is None or self.machine.accelerator is None:
            return features
        return features & self.machine.accelerator.supported_features(features.table)

    def _release(self) -> None:
        self.parked.append(self.arch_id)

    def reset(self) -> None:
        self.step("reset")


class LabAccelerator:
    """Grants `granted`, turns `on` on and `off` off."""

    name = "lab"

    def __init__(self, granted: str, on: str = "", off: str = "") -> None:
        self.granted, self.on, self.off = (TABLE.set(names.split()) for names in (granted, on, off))
        self.closed = False

    def capabilities(self) -> Mapping[str, int]:
        return {}

    def supported_features(self, table: FeatureTable) -> FeatureSet:
        assert table is TABLE
        return self.granted

    def host_identity(self) -> Mapping[str, Any]:
        return {"maker": "the host's maker"}

    def default_features(self, table: FeatureTable) -> tuple[FeatureSet, FeatureSet]:
        assert table is TABLE
        return self.on, self.off

    def close(self) -> None:
        self.closed = True


class GuestBoard(BareBoard):
    """A board whose guest is the test: it answers an unplug request when the test says so."""

    def __init__(self, machine: Machine, options: Mapping[str, Any]) -> None:
        super().__init__(machine, options)
        self.plugged: list[tuple[int, bool]] = []
        self.asked: list[int] = []
        self.broken: set[str] = set()

    def call(self, name: str) -> None:
        if name in self.broken:
            raise RuntimeError(f"the board's {name} is broken")

    def cpu_plugged(self, slot: Slot, hotplugged: bool) -> None:
        self.call("cpu_plugged")
        self.plugged.append((slot.index, hotplugged))

    def cpu_unplug_request(self, slot: Slot) -> None:
        self.call("cpu_unplug_request")
        self.asked.append(slot.index)

    def cpu_unplug_withdraw(self, slot: Slot) -> bool:
        seen = slot.index not in self.asked
        if not seen:
            self.asked.remove(slot.index)
        return not seen

    def stop(self) -> None:
        self.call("stop")


def arch_id(topology: Topology, slot: SlotId) -> int:
    return 100 + topology.index(slot)


def registry(cpu_base: type[CPUState] = LabCPU, catalogue: Catalogue = CATALOGUE) -> Registry:
    architecture = Architecture("lab", "laboratory", Path(), lambda: cpu_base, LEVELS, arch_id)
    return Registry({"lab": architecture}, lambda _: catalogue, lambda _: "lab-cpu")


def lab_class(name: str, cpu_base: type[CPUState] = LabCPU) -> CPUClass:
    return registry(cpu_base).cpu_class(f"{name}-lab-cpu")


def lab_machine(
    smp: str = "1,maxcpus=4",
    cpu: str = "one",
    cpu_base: type[CPUState] = LabCPU,
    board: Callable[[Machine, Mapping[str, Any]], BareBoard] = GuestBoard,
    accelerator: LabAccelerator | None = None,
    vetoes: Sequence[Veto] = (),
    listeners: Sequence[Callable[[HotplugEvent], None]] = (),
    compat: Sequence[CompatProperty] = (),
    alias_rule: AliasRule = AliasRule.FIRST,
    plug_unit: PlugUnit | None = None,
    **properties: Any,
) -> Machine:
    known = registry(cpu_base)
    kind = MachineType(
        "lab",
        "lab",
        "a bench",
        "one",
        64,
        board,
        alias_rule=alias_rule,
        compat=compat,
        plug_unit=plug_unit,
    )
    return Machine(
        kind,
        known.cpu_class(f"{cpu}-lab-cpu"),
        known,
        parse_smp(smp, LEVELS, 64),
        accelerator,
        properties,
        vetoes=vetoes,
        listeners=listeners,
    )


def tree(node: Object) -> list[tuple[str, str, dict[str, Any]]]:
    """Every object at and under `node` with the value of each of its properties."""
    found = [(node.path, node.type_name, {name: node.get(name) for name in node.list_properties()})]
    for _, child in node.children():
        found.extend(tree(child))
    return found


def snapshot(machine: Machine) -> dict[str, Any]:
    """All of a machine that a user can see, but for its log of events."""
    return {
        "tree": tree(machine),
        "slots": [(slot.state, slot.cpu, slot.occupant) for slot in machine.slots],
        "cpus": machine.cpus(),
        "hotpluggable": machine.hotpluggable_cpus(),
    }


def plug(machine: Machine, device: str = "", core: int = 1, **properties: Any) -> CPUState:
    """Plug a CPU into `core` of socket 0."""
    place = {"socket_id": 0, "core_id": core, "thread_id": 0}
    return machine.device_add(machine.cpu_class.type_name, device, **place, **properties)
