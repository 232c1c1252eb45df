"""The framework put together: plugins, definitions, CPU types, machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.core.arch import AcceleratorType, Architecture, MachineType
from cpufw.core.model import parse_cpu
from cpufw.core.registry import Registry
from cpufw.definitions.layers import Layers
from cpufw.definitions.stamp import environment, fresh_stamp, user_folders
from cpufw.errors import AcceleratorError, CpufwError, NotFoundError, PluginError, UsageError
from cpufw.plugins import Plugin, PluginSet

if TYPE_CHECKING:  # naming models must not cost the import of what makes machines
    from cpufw.core.accel import Accelerator
    from cpufw.core.cpu import CPUClass, CPUState
    from cpufw.core.features import FeatureSet
    from cpufw.core.hotplug import HotplugEventKind, Slot
    from cpufw.core.machine import Machine
    from cpufw.core.model import Catalogue, CPUModel, CPURequest
    from cpufw.core.model_algebra import ModelAlgebra
    from cpufw.core.topology import Topology
    from cpufw.definitions.document import Problem
    from cpufw.definitions.index import Row
    from cpufw.snapshot.channel import Channel


DEFAULT_ACCEL = "default"
"""The accelerators that the machine type names."""


class Framework:
    """Everything cpufw knows: architectures, models, machine types, accelerators.

    `definitions` are further folders of the user's own models; without `user` neither they nor the
    environment's and home's are read. `progress` is told of compiling: files done, files in all.
    Raises `DefinitionError` if a user's folder breaks a rule.
    """

    def __init__(
        self,
        definitions: Sequence[str] = (),
        strict_plugins: bool = False,
        progress: Callable[[int, int], None] | None = None,
        user: bool = True,
    ) -> None:
        self._environment = environment()
        self._given = tuple(definitions)
        self._user_folders = user_folders(definitions) if user else []
        stamp = fresh_stamp(self._user_folders)
        self.plugins = PluginSet(strict_plugins, stamp.plugins if stamp is not None else None)
        self._layers = Layers(stamp, progress)
        self.architectures: dict[str, Architecture] = {}
        self.machine_types: dict[str, MachineType] = {}
        self._owners: dict[str | Path, Plugin] = {}
        architectures = list(self.plugins.collect("cpufw_architectures", Architecture))
        folders = list(self.plugins.collect("cpufw_definitions", Path))
        machine_types = list(self.plugins.collect("cpufw_machine_types", MachineType))
        accelerators = list(self.plugins.collect("cpufw_accelerators", AcceleratorType))
        for plugin, architecture in architectures:
            self._adopt(plugin, architecture)
        for plugin, folder in folders:
            self._isolated(plugin, folder)
        for plugin, machine_type in machine_types:
            self._offer(plugin, machine_type)
        for name in self._user_folders:
            self._layers.add(Path(name))
        self.accelerators: list[AcceleratorType] = [
            thing for plugin, thing in accelerators if plugin.error is None
        ]
        self.registry = Registry(self.architectures, self.catalogue, self.suffix)
        self._catalogues: dict[str, Catalogue] = {}
        self._algebras: dict[str, ModelAlgebra] = {}
        self._stamp()

    def _adopt(self, plugin: Plugin, architecture: Architecture) -> None:
        name = architecture.name
        if name in self.architectures:
            self._withdraw(plugin, PluginError(f"architecture '{name}' is there already"))
        elif self._isolated(plugin, architecture.definitions, alone=True):
            if name in self._layers.archs:
                self.architectures[name] = architecture
                self._owners[name] = plugin
            else:
                reason = f"its definitions do not give the features of architecture '{name}'"
                self._withdraw(plugin, PluginError(reason))

    def _offer(self, plugin: Plugin, machine_type: MachineType) -> None:
        names = [name for name in (machine_type.name, machine_type.alias) if name]
        taken = [name for name in names if name in self.machine_types]
        if taken:
            self._withdraw(plugin, PluginError(f"machine type '{taken[0]}' is there already"))
        elif plugin.error is None:
            self.machine_types.update(dict.fromkeys(names, machine_type))
            self._owners.update(dict.fromkeys(names, plugin))

    def _isolated(self, plugin: Plugin, folder: Path, alone: bool = False) -> bool:
        if plugin.error is not None:
            return False
        before = set(self._layers.indexes)
        try:
            self._layers.add(folder, alone)
        except Exception as error:  # whatever is wrong with it, the rest goes on
            self._withdraw(plugin, error)
            return False
        self._owners.update(dict.fromkeys(set(self._layers.indexes) - before, plugin))
        return True

    def _withdraw(self, plugin: Plugin, error: Exception) -> None:
        """Take `plugin` out of use, with all that it brought so far."""
        if plugin.error is None:
            self.plugins.fail(plugin, error)
        known: Any
        for known in (self.architectures, self.machine_types, self._layers.indexes):
            for thing, owner in self._owners.items():
                if owner is plugin:
                    known.pop(thing, None)

    def _stamp(self) -> None:
        if not self.plugins.broken and self._user_folders == user_folders(self._given):
            self._layers.record(self._user_folders, self._environment, self.plugins.points)

    # --- what it knows -------------------------------------------------------------------

    def listing(self) -> list[Row]:
        """One row a model name, as `list-models` shows them."""
        return self._layers.listing()

    def catalogue(self, arch: str) -> Catalogue:
        """The models of an architecture. Raises `NotFoundError`."""
        if arch not in self._catalogues:
            self._check_known(arch)
            case_sensitive = self.architectures[arch].case_sensitive
            self._catalogues[arch] = self._layers.catalogue(arch, case_sensitive)
        return self._catalogues[arch]

    def _check_known(self, arch: str) -> None:
        if arch not in self.architectures:
            raise NotFoundError("architecture", arch, self.architectures)

    def suffix(self, arch: str) -> str:
        """What the type names of `arch` end in: `x86_64-cpu`."""
        return self._layers.suffix(arch)

    def cpu_class(self, type_name: str) -> CPUClass:
        """The class of a CPU type. Raises `NotFoundError`."""
        return self.registry.cpu_class(type_name)

    def find_model(self, name: str, arch: str | None = None) -> CPUClass:
        """The CPU type of the model `name`, of `arch`; else of this host's or the first with it.

        Raises `NotFoundError` with the nearest names.
        """
        native = os.uname().machine
        archs = sorted(self.architectures, key=lambda known: known != native)
        archs = [arch] if arch is not None else archs
        known: list[str] = []
        for candidate in archs:
            # By the names alone: the features of architectures that are not meant stay unread.
            self._check_known(candidate)
            names = list(self._layers.names(candidate))
            fold = str if self.architectures[candidate].case_sensitive else str.lower
            if fold(name) in map(fold, names):
                type_name = self.registry.type_name(candidate, name)
                return self.registry.cpu_class(type_name, candidate)
            known.extend(names)
        raise NotFoundError("CPU model", name, known, "see cpufw list-models")

    def cpu(self, text: str, arch: str | None = None) -> CPUState:
        """A CPU, not realized, from a `--cpu` string: `Haswell,+pcid,-avx,stepping=3`.

        Raises `NotFoundError`, `ModelError` or `PropertyError`.
        """
        request = parse_cpu(text)
        made: CPUState = self.find_model(request.model, arch)(**request.settings())
        return made

    def algebra(self, arch: str) -> ModelAlgebra:
        """expand, compare and the rest over the models of `arch`. Raises `NotFoundError`."""
        if arch not in self._algebras:
            catalogue = self.catalogue(arch)
            from cpufw.core.model_algebra import ModelAlgebra

            self._algebras[arch] = ModelAlgebra(
                self.architectures[arch], catalogue, lambda text: self.cpu(text, arch)
            )
        return self._algebras[arch]

    def best_model(self, arch: str, accelerator: Accelerator) -> CPUModel | None:
        """The versioned model with most features of those that `accelerator` grants in full.

        A model of the host's own vendor goes before any other.
        """
        vendor = accelerator.host_identity().get("vendor")
        suffix = self.suffix(arch)
        usable = [
            model
            for model in self.catalogue(arch)
            if not model.dynamic
            and not model.static
            and (model.version is not None or model.alias_of is None)
            and not self.unavailable_features(f"{model.name}-{suffix}", accelerator)
        ]
        return max(
            usable,
            key=lambda m: (m.identity.get("vendor") == vendor, len(m.features), m.version or 0),
            default=None,
        )

    def check(self, paths: Sequence[Path]) -> tuple[int, list[Problem]]:
        """How many files the definitions at `paths` have, and every problem in them.

        Without paths, all that are in use. Files and folders that are not in use themselves may
        start from models that are.
        """
        from cpufw.definitions.compile import definition_files, problems_of
        from cpufw.definitions.store import schema_folders

        used = self._layers.indexes
        files: list[Path] = []
        problems: list[Problem] = []
        for path in paths or (*used, *map(Path, user_folders(self._given))):
            if not path.exists():
                raise CpufwError(f"{path} does not exist")
            folder = path if path.is_dir() else path.parent
            found = definition_files(path) if path.is_dir() else [path]
            in_use = any(path.resolve().is_relative_to(each.resolve()) for each in used)
            if in_use and path not in used:
                owner = next(e for e in used if path.resolve().is_relative_to(e.resolve()))
                whole = problems_of(definition_files(owner), schema_folders(owner), {})
                problems += [p for p in whole if Path(p.file).resolve() in _resolved(found)]
            else:
                base = {} if in_use else self._layers.compiled()
                problems += problems_of(found, schema_folders(folder), base)
            files += found
        return len(files), problems

    def machine_type(self, name: str) -> MachineType:
        """The machine type of this name or alias. Raises `NotFoundError`."""
        if name in self.machine_types:
            return self.machine_types[name]
        from cpufw.definitions.machines import machine_names, machine_type

        known = [*self.machine_types, "none"]
        for arch, data in self._layers.machines():
            found = machine_type(data, name, self.suffix(arch))
            if found is not None:
                return found
            known += machine_names(data)
        raise NotFoundError("machine type", name, known)

    def machine_types_of(self, arch: str) -> list[MachineType]:
        """Every machine type of an architecture, those of definitions in all their versions."""
        from cpufw.definitions.machines import machine_names, machine_type

        found = {kind.name: kind for kind in self.machine_types.values() if kind.arch == arch}
        for owner, data in self._layers.machines():
            for name in machine_names(data) if owner == arch else ():
                kind = machine_type(data, name, self.suffix(arch))
                if kind is not None:
                    found.setdefault(kind.name, kind)
        return list(found.values())

    def _guest_machines(self, arch: str) -> list[MachineType]:
        kinds = {kind.name: kind for kind in self.machine_types.values()}
        return [kind for kind in kinds.values() if kind.arch == arch and kind.accel is not None]

    def with_board(self, kind: MachineType) -> MachineType:
        """`kind`; one that only describes CPUs with the board that runs its guests.

        Raises `UsageError` if none does.
        """
        if kind.accel is not None:
            return kind
        family = kind.name.rpartition("-")[0]
        boards = self._guest_machines(kind.arch)
        for each in boards:
            if family in each.runs:
                return replace(kind, board=each.board, accel=each.accel)
        names = [each.alias or each.name for each in boards]
        raise UsageError(
            f"machine type {kind.name} only describes CPUs; "
            f"to run a guest use {' or '.join(names) or 'one that has a board'}"
        )

    def open_accelerator(self, arch: str, names: str) -> Accelerator:
        """Open the first of the accelerators in `names` (`"kvm:unicorn"`) that can be.

        Raises `AcceleratorError` with every reason why none can.
        """
        reasons = []
        for name in names.split(":"):
            kinds = [kind for kind in self.accelerators if kind.name == name]
            if not kinds:
                raise NotFoundError("accelerator", name, {kind.name for kind in self.accelerators})
            fitting = [kind for kind in kinds if kind.arch == arch]
            if not fitting:
                reasons.append(f"accelerator {name} does not run {arch} guests")
                continue
            try:
                return fitting[0].open()
            except AcceleratorError as error:
                reasons.append(str(error))
        raise AcceleratorError("; ".join(reasons))

    def accelerator_of(self, arch: str) -> Accelerator:
        """Open the first accelerator for `arch` that can be. Raises `AcceleratorError`."""
        names = [kind.name for kind in self.accelerators if kind.arch == arch]
        if not names:
            raise AcceleratorError(f"no accelerator runs {arch} guests")
        return self.open_accelerator(arch, ":".join(names))

    def unavailable_features(self, type_name: str, accelerator: Accelerator) -> FeatureSet:
        """What a CPU of this type would ask for and `accelerator` cannot give."""
        from cpufw.core.accel import Offer

        cpu_class = self.cpu_class(type_name)
        model = cpu_class.model
        if model.dynamic:
            return model.table.empty
        cpu: CPUState = cpu_class()
        return Offer(accelerator, model.table).lacks(cpu.expand().features, cpu.settled)

    def machine(
        self,
        machine: str = "pc",
        cpu: str | CPURequest | None = None,
        smp: str | Topology = "1",
        accel: str | Accelerator | None = DEFAULT_ACCEL,
        arch: str | None = None,
        **options: Any,
    ) -> Machine:
        """A machine with its boot CPUs realized, not yet started.

        `cpu` is a `--cpu` string (`Haswell,+pcid,-avx,stepping=3`) or one taken apart, `smp` a
        `-smp` string or a topology, `accel` names an accelerator, is an opened one, or None for
        none; without it the machine type decides. `arch` is the architecture of a
        machine `none`, if several have the model. `options` are the machine type's own, or those
        of the board that runs its guests. Raises what its parts raise; nothing stays open then.
        """
        from cpufw.core.board import BareBoard
        from cpufw.core.machine import Machine
        from cpufw.core.topology import parse_smp

        request = parse_cpu(cpu) if isinstance(cpu, str) else cpu
        if machine == "none":
            if request is None:
                raise CpufwError("machine type none needs a CPU model: cpu='Haswell'")
            cpu_class = self.find_model(request.model, arch)
            kind = MachineType(
                "none",
                cpu_class.arch,
                "CPUs and nothing else",
                request.model,
                4096,
                BareBoard,
                accel=None,
            )
        else:
            kind = self.machine_type(machine)
            if options:
                kind = self.with_board(kind)
            request = request or parse_cpu(kind.default_cpu)
            cpu_class = self.find_model(request.model, kind.arch)
        levels = cpu_class.architecture.levels
        topology = parse_smp(smp, levels, kind.max_cpus) if isinstance(smp, str) else smp
        properties = request.settings()
        accel = kind.accel if accel == DEFAULT_ACCEL else accel
        opened = self.open_accelerator(kind.arch, accel) if isinstance(accel, str) else accel
        try:
            built = Machine(
                kind,
                cpu_class,
                self.registry,
                topology,
                opened,
                properties,
                options,
                vetoes=[self._veto],
                listeners=[lambda event: self.plugins.tell("cpufw_hotplug_event", event=event)],
            )
        except BaseException:
            if isinstance(accel, str) and opened is not None:
                opened.close()
            raise
        built.owns_accelerator = isinstance(accel, str)
        built.on_realized = lambda each: self.plugins.tell("cpufw_cpu_realized", cpu=each)
        for each in built.cpus():
            built.on_realized(each)
        return built

    def load_machine(
        self, path: str | Path, accel: str | Accelerator | None = DEFAULT_ACCEL, **options: Any
    ) -> Machine:
        """The machine that `Machine.save` wrote to `path`: its `start` lets the guest go on.

        `options` are the board's that concern the host alone, such as `serial`. Raises
        `StateError` for a file that is damaged, or a CPU that this host cannot give, naming the
        features; nothing stays open then.
        """
        from cpufw.snapshot.remake import from_file
        from cpufw.snapshot.snapshot import load

        return load(Path(path), from_file(self.machine, accel, options))

    def receive_machine(
        self, channel: Channel, accel: str | Accelerator | None = DEFAULT_ACCEL, **options: Any
    ) -> Machine:
        """The machine that a `Migration` sends through `channel`, running; see `load_machine`.

        Whoever sends it has no say in which files of this host it uses: `options` name its disks,
        as many as it has, and the kernel or firmware that it needs for a reset.
        """
        from cpufw.snapshot.incoming import receive
        from cpufw.snapshot.remake import from_elsewhere

        return receive(channel, from_elsewhere(self.machine, accel, options))

    def _veto(self, slot: Slot, kind: HotplugEventKind) -> str | None:
        broken = len(self.plugins.broken)
        for plugin, reason in self.plugins.ask("cpufw_hotplug_veto", slot=slot, kind=kind):
            if reason:
                return f"plugin {plugin.name} vetoes: {reason}"
        if len(self.plugins.broken) > broken:
            # A guard that could not answer has not said yes; out of use, it is not asked again.
            return self.plugins.sentence(self.plugins.broken[-1])
        return None


@cache
def default() -> Framework:
    """The framework that the functions of the package `cpufw` use."""
    return Framework()


def _resolved(paths: Sequence[Path]) -> set[Path]:
    return {path.resolve() for path in paths}
