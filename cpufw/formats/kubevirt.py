"""KubeVirt: the CPU of a virtual machine's spec, and the labels of its nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cpufw.core.features import FeatureSet, FeatureTable
from cpufw.errors import FormatError, ModelError
from cpufw.formats.format import Exported, Imported, Models
from cpufw.formats.libvirt_cpu import (
    MODES,
    LibvirtCPU,
    class_of,
    describe,
    held_features,
    resolve,
    usable,
)
from cpufw.formats.libvirt_names import LibvirtNames
from cpufw.formats.requests import switched
from cpufw.formats.text import MAX_YAML_CHARACTERS, dump_yaml, parse_yaml

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUState

_PATHS = (
    "spec.template.spec.domain.cpu",  # VirtualMachine and its sets
    "spec.virtualMachineTemplate.spec.template.spec.domain.cpu",  # VirtualMachinePool
    "spec.domain.cpu",  # VirtualMachineInstance
    "domain.cpu",
    "spec.cpu",  # the instance types
    "cpu",
)
_OTHER_KEYS = (
    "cores", "sockets", "threads", "maxSockets", "guest", "dedicatedCPUPlacement",
    "isolateEmulatorThread", "numa", "realtime",
)  # fmt: skip

_CPU_KEY = re.compile(r"""(?:^\s*|[{,]\s*)["']?cpu["']?:(?:\s|$)""", re.MULTILINE)

_LABELS = ".node.kubevirt.io/"
MODEL, FEATURE, VENDOR = (f"cpu-{kind}{_LABELS}" for kind in ("model", "feature", "vendor"))
MIGRATION = f"cpu-model-migration{_LABELS}"
HOST_MODEL = f"host-model-cpu{_LABELS}"
HOST_FEATURE = f"host-model-required-features{_LABELS}"


class KubevirtSpec:
    """`spec.template.spec.domain.cpu` of a VirtualMachine, in libvirt's terms."""

    def __init__(
        self, arch: str, names: Callable[[FeatureTable], LibvirtNames] = LibvirtNames
    ) -> None:
        self.arch, self._names = arch, names

    def recognises(self, text: str) -> bool:
        """Whether this may be a Kubernetes object with a `cpu`, as YAML or JSON."""
        return bool(_CPU_KEY.search(text[:MAX_YAML_CHARACTERS]))

    def write(self, cpu: CPUState, models: Models) -> Exported:
        """The part of the spec that names the CPU."""
        described, lost = describe(cpu, models, self._names(models.catalogue(self.arch).table))
        if described.mode == "maximum":
            raise ModelError("KubeVirt has no word for CPU model 'max'")
        cpu_spec: dict[str, Any] = {"model": described.model or described.mode}
        if described.features:
            cpu_spec["features"] = [
                {"name": name, "policy": policy} for name, policy in described.features
            ]
        spec = {"spec": {"template": {"spec": {"domain": {"cpu": cpu_spec}}}}}
        return Exported(dump_yaml(spec), (*_unsaid(described), *lost))

    def read(self, text: str, models: Models) -> Imported:
        """The CPU of a virtual machine's spec; without a model it is KubeVirt's default."""
        spec, others = _find(text, _cpu_of, f"there is no CPU in it: {_PATHS[0]} is missing")
        notes = ["only the first CPU of several is read"] if others else []
        notes += [f"{key} is not part of a CPU model" for key in _OTHER_KEYS if key in spec]
        unknown = spec.keys() - {"model", "features", *_OTHER_KEYS}
        notes += [f"{key} is not known here and left out" for key in sorted(map(str, unknown))]
        model = spec.get("model", "host-model")
        if not isinstance(model, str):
            raise FormatError("cpu.model is not text")
        if "model" not in spec:
            notes.append("no model is given: KubeVirt's default is host-model")
        features = _features(spec.get("features") or [])
        if model == "host-model" or model in MODES.values():
            described = LibvirtCPU(mode=model, features=features)
        else:
            described = LibvirtCPU(model=model, features=features)
        names = self._names(models.catalogue(self.arch).table)
        read = resolve(described, self.arch, models, names)
        return Imported(read.request, (*notes, *read.notes))


class KubevirtNode:
    """The labels that KubeVirt gives a node for what its CPU can do."""

    def __init__(
        self, arch: str, names: Callable[[FeatureTable], LibvirtNames] = LibvirtNames
    ) -> None:
        self.arch, self._names = arch, names

    def recognises(self, text: str) -> bool:
        """Whether one of KubeVirt's labels is in it."""
        return _LABELS in text

    def write(self, cpu: CPUState, models: Models) -> Exported:
        """The labels of a node whose host model is `cpu`."""
        names = self._names(models.catalogue(self.arch).table)
        described, lost = describe(cpu, models, names)
        if described.model is None:
            raise ModelError(f"CPU model '{cpu.model.name}' is no model that labels can name")
        required = [name for name, policy in described.features if policy == "require"]
        every = [name for feature in cpu.expand().features for name in names.of(feature)]
        labels = [HOST_MODEL + described.model, MODEL + described.model]
        labels.append(MIGRATION + described.model)
        labels += [VENDOR + described.vendor] if described.vendor else []
        labels += [HOST_FEATURE + name for name in required]
        labels += [FEATURE + name for name in every]
        text = dump_yaml({"metadata": {"labels": dict.fromkeys(labels, "true")}})
        held = self._held(described.model, models, names)
        absent = held - cpu.expand().features
        untold = absent if _too_few_labels(absent, held) or not every else ()
        return Exported(text, (*_unsaid(described), *switched((), untold), *lost))

    def read(self, text: str, models: Models) -> Imported:
        """The host's CPU as far as the labels tell: its model and exactly the labelled features."""
        missing = "there are no labels of KubeVirt in it: metadata.labels is missing"
        labels, others = _find(text, _labels_of, missing)
        found: dict[str, list[str]] = {}
        for label, value in labels.items():
            prefix, slash, name = str(label).partition("/")
            if slash and str(value).lower() == "true":
                found.setdefault(prefix + slash, []).append(name)
        names = self._names(models.catalogue(self.arch).table)
        notes = ["only the first node of several is read"] if others else []
        model = self._model(found, names, notes)
        present = found.get(FEATURE, [])
        features = [(name, "require") for name in present or found.get(HOST_FEATURE, [])]
        if present:
            held = self._held(model, models, names)
            known = {names.feature(name) for name in present}
            absent = held.table.set(each for each in held if each not in known)
            if _too_few_labels(absent, held):
                notes.append(f"the labels leave out most features of {model}: it has all of them")
                absent = held.table.empty
            features += [(name, "disable") for each in absent for name in names.of(each)]
        described = LibvirtCPU(model=model, features=tuple(features))
        read = resolve(described, self.arch, models, names)
        return Imported(read.request, (*notes, *read.notes))

    def _held(self, model: str, models: Models, names: LibvirtNames) -> FeatureSet:
        cpu_class = class_of(model, self.arch, models, names)
        return usable(held_features(cpu_class, names, model), names)

    def _model(self, found: Mapping[str, list[str]], names: LibvirtNames, notes: list[str]) -> str:
        host = found.get(HOST_MODEL, [])
        if len(host) > 1:
            raise FormatError(f"the node has {len(host)} host models: {', '.join(host)}")
        if host:
            return host[0]
        usable = found.get(MODEL, [])
        if not usable:
            raise FormatError(f"no label begins with {HOST_MODEL} or {MODEL}")
        best = max(usable, key=lambda name: len(names.model(name) or ()))
        notes.append(f"no label names the host's model: {best} has most features of its models")
        return best


def _too_few_labels(absent: FeatureSet, held: FeatureSet) -> bool:
    """Whether labels are missing, and not features: KubeVirt once left out its minimal model's."""
    return 2 * len(absent) > len(held)


def _unsaid(described: LibvirtCPU) -> tuple[str, ...]:
    """What libvirt can say of a CPU and KubeVirt cannot."""
    values = {
        "vendor": described.vendor_id,
        "phys-bits": described.phys_bits,
        "l3-cache": {True: "on", False: "off", None: None}[described.l3_cache],
        "enforce": "on" if described.check == "full" else None,
        "check": "off" if described.check == "none" else None,
    }
    return tuple(f"{name}={value}" for name, value in values.items() if value is not None)


def _find(
    text: str, part: Callable[[Mapping[str, Any]], Mapping[str, Any] | None], missing: str
) -> tuple[Mapping[str, Any], bool]:
    """The `part` of the first object that has one, and whether others have one, too."""
    found = []
    for document in parse_yaml(text):
        items = document.get("items") if isinstance(document, Mapping) else None
        for each in items if isinstance(items, list) else [document]:
            value = part(each) if isinstance(each, Mapping) else None
            if value is not None:
                found.append(value)
    if not found:
        raise FormatError(missing)
    return found[0], len(found) > 1


def _cpu_of(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for path in _PATHS:
        value: Any = document
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping):
            return value
    return None


def _labels_of(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    metadata = document.get("metadata")
    in_metadata = metadata.get("labels") if isinstance(metadata, Mapping) else None
    for each in (in_metadata, document.get("labels"), document):
        if isinstance(each, Mapping) and any(_LABELS in str(key) for key in each):
            return each
    return None


def _features(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise FormatError("cpu.features is not a list")
    found = []
    for each in value:
        name = each.get("name") if isinstance(each, Mapping) else None
        policy = each.get("policy") or "require" if isinstance(each, Mapping) else None
        if not isinstance(name, str) or not isinstance(policy, str):
            raise FormatError("cpu.features: each needs a name, and may have a policy")
        found.append((name, policy))
    return tuple(found)
