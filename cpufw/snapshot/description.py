"""What a saved machine is, apart from its state: enough to make it again and to compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from cpufw.core.hotplug import Slot, SlotState
from cpufw.core.sockets import CPUSocket
from cpufw.errors import StateError
from cpufw.version import __version__

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUState
    from cpufw.core.machine import Machine
    from cpufw.snapshot.saved import SavableBoard

RECORD = "machine"
VERSION = 2
_FEATURES = ("requested", "granted", "extra")


@dataclass(frozen=True)
class PluggedCpu:
    """A CPU in slot number `slot`; `properties` are those it was given beyond the machine's.

    `socket` is the name of the object in `/objects` that it came with, if it came so.
    """

    slot: int
    id: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)
    socket: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether the values are of the right types."""
        kinds = (type(self.slot), type(self.id), type(self.properties), type(self.socket))
        return kinds == (int, str, dict, str)


@dataclass(frozen=True)
class MachineDescription:
    """A machine as it was saved.

    `cpufw` is the version that saved it; `machine` the machine type; `model` the CPU model that
    was named and `resolved` the version of it that was meant; `properties` what the CPUs were
    given; `identity` what the model comes to (family, vendor, levels, …); `smp` the topology as
    `--smp` takes it; `requested`, `granted` and `extra` are names of features; `board` the board's
    options but for `files`, which name files of the host.
    """

    cpufw: str
    machine: str
    arch: str
    model: str
    resolved: str
    properties: Mapping[str, Any]
    identity: Mapping[str, Any]
    smp: str
    requested: tuple[str, ...]
    granted: tuple[str, ...]
    extra: tuple[str, ...]
    cpus: tuple[PluggedCpu, ...]
    board: Mapping[str, Any]
    files: Mapping[str, Any]

    def encode(self) -> dict[str, Any]:
        """Plain data for a record."""
        return {"version": VERSION, "fields": _plain(asdict(self))}

    @classmethod
    def decode(cls, state: Mapping[str, Any], where: str) -> MachineDescription:
        """What was encoded. Raises `StateError` if it is newer or not a description."""
        version, values = state.get("version"), state.get("fields")
        if isinstance(version, int) and version > VERSION:
            raise StateError(
                f"{where} describes its machine in version {version}, this cpufw reads up to "
                f"{VERSION}: load it with a newer cpufw"
            )
        try:
            values = dict(values)  # type: ignore[arg-type]
            values["cpus"] = tuple(PluggedCpu(**each) for each in values["cpus"])
            for name in _FEATURES:
                values[name] = tuple(values[name])
            found = cls(**values)
        except (TypeError, KeyError, ValueError) as error:
            raise StateError(f"{where} does not describe a machine: {error}") from None
        for each in fields(cls):
            wanted: type = dict if str(each.type).startswith("Mapping") else str
            value = getattr(found, each.name)
            if each.name == "cpus":
                good = all(cpu.is_sound for cpu in value)
            elif each.name in _FEATURES:
                good = all(isinstance(name, str) for name in value)
            else:
                good = isinstance(value, wanted)
            if not good:
                raise StateError(f"{where} does not describe a machine: {each.name} is {value!r}")
        return found


def describe(machine: Machine, board: SavableBoard) -> MachineDescription:
    """The description of a machine as it is. Raises `StateError` while a CPU comes or goes."""
    boot = machine.slots[0].cpu
    if boot is None or boot.expansion is None:
        raise StateError("a machine without a boot CPU cannot be saved")
    common: CPUState = machine.cpu_class(**machine.cpu_properties)
    shared = common.settings()
    used = [slot for slot in machine.slots if slot.state is not SlotState.EMPTY]
    return MachineDescription(
        __version__,
        machine.machine_type.name,
        machine.cpu_class.arch,
        machine.cpu_class.model.name,
        machine.resolve_model(machine.cpu_class.model).name,
        machine.cpu_properties,
        _plain(boot.expansion.identity),
        str(machine.topology),
        tuple(boot.requested),
        tuple(boot.granted),
        tuple(boot.extra),
        tuple(plugged_cpu(slot, shared) for slot in used),
        board.options(),
        board.files(),
    )


def plugged_cpu(slot: Slot, shared: Mapping[str, Any]) -> PluggedCpu:
    """The CPU of a slot; `shared` are the properties that all CPUs of its machine were given."""
    cpu = slot.cpu
    if cpu is None or slot.state in (SlotState.PLUGGING, SlotState.EJECTING):
        raise StateError(f"slot {slot.index} is {slot.state.value}: save again when that is done")
    place = cpu.architecture.place_names
    own = {
        name: value
        for name, value in cpu.settings().items()
        if name not in place and shared.get(name) != value
    }
    socket = cpu.parent.name if isinstance(cpu.parent, CPUSocket) else ""
    return PluggedCpu(slot.index, cpu.device_id, own, socket)


def _plain(value: Any) -> Any:
    """As it comes back from a record."""
    return json.loads(json.dumps(value))


def check_same_cpu(saved: MachineDescription, machine: Machine) -> None:
    """Raise `StateError` unless the boot CPU of `machine` is what was saved."""
    boot = machine.slots[0].cpu
    assert boot is not None
    assert boot.expansion is not None
    resolved = machine.resolve_model(machine.cpu_class.model).name
    if resolved != saved.resolved:
        raise StateError(
            f"CPU model {saved.model} means {resolved} here and {saved.resolved} where the machine "
            "was saved"
        )
    here = {*boot.granted, *boot.extra}
    missing = [name for name in (*saved.granted, *saved.extra) if name not in here]
    if missing:
        raise StateError(
            f"this host cannot give the saved CPU {saved.resolved}: "
            f"{machine.accelerator_name} does not grant {', '.join(missing)}"
        )
    identity = _plain(boot.expansion.identity)
    for name in sorted({*identity, *saved.identity}):
        now, then = identity.get(name), saved.identity.get(name)
        if now != then:
            raise StateError(
                f"the saved CPU {saved.resolved} has {name} {then!r}, here it would have {now!r}"
            )


def unasked_features(saved: MachineDescription, machine: Machine) -> list[str]:
    """Features that the guest would see here and did not see where the machine was saved."""
    boot = machine.slots[0].cpu
    assert boot is not None
    known = {*saved.granted, *saved.extra}
    return [name for name in boot.granted if name not in known]
