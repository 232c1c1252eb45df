"""CPU types and CPUs: the metaclass `CPUClass`, the abstract `CPUState`, and realize."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from cpufw.core.features import FeatureSet
from cpufw.core.model import CPUModel, Expansion, expand
from cpufw.core.qom import DEVICE_PROPERTIES, Object, Property
from cpufw.core.topology import Topology
from cpufw.errors import ModelError, PropertyError

if TYPE_CHECKING:
    from cpufw.core.arch import Architecture
    from cpufw.core.hotplug import Slot
    from cpufw.core.machine import Machine


class CPUClass(ABCMeta):
    """The class of CPU types: what a CPU type *is*.

    Each CPU type has a `model`, an `arch` and a `type_name`; abstract bases have no model.
    """

    model: CPUModel
    architecture: Architecture
    type_name: str
    _properties: Mapping[str, Property]

    @property
    def arch(cls) -> str:
        """The architecture's name: `x86_64`."""
        return cls.architecture.name

    @property
    def properties(cls) -> Mapping[str, Property]:
        """Every property of this CPU type by name, with its default for this model."""
        found = cls.__dict__.get("_properties")
        if found is None:
            found = _class_properties(cls)
            cls._properties = found
        return found

    def __repr__(cls) -> str:
        return f"<CPU type {cls.__dict__.get('type_name', cls.__name__)}>"


def build_cpu_class(model: CPUModel, architecture: Architecture, type_name: str) -> CPUClass:
    """The Python class for one CPU model."""
    python_name = "".join(c if c.isalnum() else "_" for c in type_name)
    namespace = {
        "model": model,
        "architecture": architecture,
        "type_name": type_name,
        "__doc__": model.description,
        "__module__": __name__,
    }
    return CPUClass(python_name, (architecture.cpu_base(),), namespace)


def _class_properties(cls: CPUClass) -> dict[str, Property]:
    model = cls.model
    properties = {spec.name: spec for spec in DEVICE_PROPERTIES}
    properties.update(cls.extra_properties)  # type: ignore[attr-defined]
    properties.update(cls.architecture.place_properties)
    for name, value in model.identity.items():
        if name in properties:
            spec = properties[name]
            properties[name] = Property(
                name, spec.type, spec.description, value, spec.low, spec.high, spec.check
            )
    always_on = () if model.static else cls.always_on  # type: ignore[attr-defined]
    for feature in model.table:
        on = feature.name in model.features or feature.name in always_on
        # Under every name it is the one property: what is set by an alias shows by the name.
        spec = Property(feature.name, "bool", feature.description, on)
        for name in (feature.name, *feature.aliases.get("qemu", ())):
            properties.setdefault(name, spec)
    properties[_UNAVAILABLE.name] = _UNAVAILABLE
    properties["check"] = Property("check", "bool", "warn of features not granted", True)
    properties["enforce"] = Property("enforce", "bool", "refuse if a feature is not granted", False)
    return properties


_UNAVAILABLE = Property(
    "unavailable-features",
    "strList",
    "features asked for and not granted",
    writable=False,
    compute=lambda cpu: list(cpu.unavailable),
)


class CPUState(Object, metaclass=CPUClass):
    """One vCPU: an instance of a CPU type.

    Properties can be set until `realize`, never after. After it `requested` are the features asked
    for, `granted` those of them that the guest has, `unavailable` the difference; `extra` are
    features the accelerator shows the guest unasked; `warnings` says it in sentences. An
    architecture overrides `_synthesise`, `_accelerate`, `_release` and `reset`.
    """

    model: ClassVar[CPUModel]
    architecture: ClassVar[Architecture]
    extra_properties: ClassVar[Mapping[str, Property]] = {}
    always_on: ClassVar[tuple[str, ...]] = ()  # features of every named model, as on QEMU
    hotpluggable = True

    def __init__(self, device_id: str = "", **properties: Any) -> None:
        super().__init__()
        self.device_id = device_id
        self.realized = self.hotplugged = False
        self.machine: Machine | None = None
        self.slot: Slot | None = None
        self.expansion: Expansion | None = None
        self.requested = self.granted = self.unavailable = self.model.table.empty
        self.extra = self.model.table.empty
        self.warnings: tuple[str, ...] = ()
        for name, value in properties.items():
            self.set(name, value)

    def property_specs(self) -> Mapping[str, Property]:
        """The properties of this CPU's type."""
        return type(self).properties

    def set(self, name: str, value: Any) -> None:
        """Set a property. Raises `PropertyError`; after realize nothing can be set."""
        if self.realized:
            raise PropertyError(f"{self.type_name}.{name} cannot be set: {self.path} is realized")
        super().set(name, value)

    def get(self, name: str) -> Any:
        """The value of a property; a realized CPU shows what was granted and where it stands."""
        value = super().get(name)
        if not self.realized or name == "type" or self.child(name) or name in self.links():
            return value
        name = self._spec(name).name
        if name in self.model.table:
            return name in self.granted
        if self.slot is None or self.machine is None:
            return value
        place = {**self.slot.id.props(), **self.machine.place_of(self.slot)}
        place[self.architecture.arch_id_name] = self.slot.arch_id
        return place.get(name, value)

    @property
    def cpu_index(self) -> int:
        """The index of this CPU's slot; 0 without a machine."""
        return self.slot.index if self.slot is not None else 0

    @property
    def arch_id(self) -> int:
        """The architecture's own id of this CPU (the APIC id on x86)."""
        return self.slot.arch_id if self.slot is not None else 0

    def given(self, name: str) -> Any:
        """The value the user set for `name`, or None."""
        return self._values.get(name)

    @property
    def settled(self) -> FeatureSet:
        """The features on which an accelerator's defaults have no say: those the user set."""
        table, static = self.model.table, self.model.static
        return table.set(each.name for each in table if static or each.name in self._values)

    def run_facts(self) -> dict[str, Any]:
        """What QMP's `query-cpus-fast` further says of a CPU of this architecture."""
        return {}

    # --- the life of a CPU ---------------------------------------------------------------

    def realize(
        self, machine: Machine | None = None, slot: Slot | None = None, hotplugged: bool = False
    ) -> None:
        """Make this CPU work: expand, check, accelerate, expose.

        With a machine it takes `slot` (or the slot its properties name). Whatever fails undoes
        the steps before it in reverse and raises; the machine is then as it was.
        """
        if self.realized:
            raise PropertyError(f"{self.path} is realized already")
        with ExitStack() as undo:
            undo.callback(self._forget)
            self.expansion = self._expand_once(machine)
            if machine is not None:
                self.machine, self.slot = machine, machine.pre_plug(self, slot)
                undo.callback(machine.cancel_plug, self)
            self._synthesise()
            self.requested = self.expansion.features
            self.granted = self._accelerate()
            undo.callback(self._release)
            self._check_granted()
            self.realized, self.hotplugged = True, hotplugged
            if machine is not None:
                machine.plug(self, hotplugged)
            undo.pop_all()

    def unrealize(self) -> None:
        """Give back what realize took; the object can be configured and realized again."""
        if self.realized:
            self._release()
            self._forget()

    def _forget(self) -> None:
        self.realized = self.hotplugged = False
        self.machine = self.slot = self.expansion = None
        self.requested = self.granted = self.unavailable = self.model.table.empty
        self.extra = self.model.table.empty
        self.warnings = ()

    def expand(self, machine: Machine | None = None) -> Expansion:
        """What realize would ask for, in `machine` or in none (its step 1).

        The version that the name means, the machine type's compat properties, the accelerator's
        defaults, then the user's properties. Raises `ModelError` if they contradict one another.
        """
        table = self.model.table
        model, settings = self.model, dict(self._values)
        defaults_on = table.empty if model.static else table.set(self.always_on)
        defaults_off = table.empty
        if machine is None and model.dynamic:
            raise ModelError(f"CPU model '{model.name}' needs an accelerator to read from")
        if machine is not None:
            model = machine.resolve_model(model)
            settings = {**machine.compat_values(type(self)), **settings}
            accel_on, defaults_off = machine.default_features(model)
            defaults_on |= accel_on
        plus = table.set(name for name, value in settings.items() if name in table and value)
        minus = table.set(name for name, value in settings.items() if name in table and not value)
        identity = {
            name: value for name, value in settings.items() if name in self.extra_properties
        }
        return expand(model, plus, minus, identity, defaults_on, defaults_off)

    def _expand_once(self, machine: Machine | None) -> Expansion:
        """`expand`, worked out once for all CPUs of `machine` that were given the same."""
        if machine is None:
            return self.expand()
        place = self.architecture.place_names
        given = frozenset(item for item in self._values.items() if item[0] not in place)
        found = machine.expansions.get((type(self), given))
        if found is None:
            found = machine.expansions[type(self), given] = self.expand(machine)
        return found

    def _check_granted(self) -> None:
        """Step 4's end: compare by name; `enforce` refuses, `check` warns."""
        self.unavailable = self.requested - self.granted
        accel = self.machine.accelerator_name if self.machine is not None else "accelerator"
        sentences = []
        if self.unavailable:
            sentence = f"{self.model.name}: {accel} does not grant {_places(self.unavailable)}"
            if self.get("enforce"):
                raise ModelError(sentence)
            sentences.append(sentence)
        if self.extra:
            sentences.append(f"{self.model.name}: {accel} adds unasked {_places(self.extra)}")
        if self.get("check"):
            self.warnings = tuple(sentences)

    # --- what an architecture provides ---------------------------------------------------

    @property
    def topology(self) -> Topology:
        """The topology this CPU stands in: its machine's, or a single thread."""
        if self.machine is not None:
            return self.machine.topology
        return Topology(tuple((level, 1) for level in self.architecture.levels), 1)

    @abstractmethod
    def _synthesise(self) -> None:
        """Step 3: the architecture's registers for this model in this slot."""

    def _accelerate(self) -> FeatureSet:
        """Step 4: create or reuse the vCPU, give it its registers; returns what was granted.

        Without a machine or an accelerator there is no vCPU and all of `requested` is granted;
        where nothing runs, what the accelerator supports of it is, and is shown.
        """
        granted = self.requested
        if self.machine is not None and self.machine.accelerator is not None:
            granted &= self.machine.accelerator.supported_features(granted.table)
            self._show(granted)
        return granted

    def _show(self, features: FeatureSet) -> None:
        """Make the architecture's registers those of a CPU with `features`."""

    @abstractmethod
    def _release(self) -> None:
        """Undo `_accelerate`: stop the vCPU and park it."""

    @abstractmethod
    def reset(self) -> None:
        """Bring the vCPU to its power-on state."""


@lru_cache(maxsize=32)  # the CPUs of a machine mostly lack the same
def _places(features: FeatureSet) -> str:
    table = features.table
    return ", ".join(f"{name} ({' '.join(table[name].places)})" for name in features)
