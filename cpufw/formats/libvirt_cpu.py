"""A CPU in libvirt's terms, which KubeVirt shares: a model, and a policy for each feature.

What is written means the same to both who read it: to libvirt, whose model of a name has its own
set of features, and to the QEMU that libvirt starts with that name and the features written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpufw.core.algebra import runnable
from cpufw.core.features import FeatureSet
from cpufw.core.model import CPURequest
from cpufw.errors import FormatError, ModelError, NotFoundError, nearest
from cpufw.formats.format import Imported, Models
from cpufw.formats.libvirt_names import LibvirtNames
from cpufw.formats.requests import (
    changed_identity,
    given_features,
    given_identity,
    named_models,
    nearest_model,
    own_features,
    request_for,
    settings,
    signed_features,
    spelled,
    switched,
)

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUClass, CPUState

MODES = {"host": "host-passthrough", "max": "maximum"}
"""libvirt's modes for the models that the accelerator fills in."""

_MODELS_OF_MODES = {"host-passthrough": "host", "host-model": "host", "maximum": "max"}

_ON = ("require", "force", "optional")
_OFF = ("disable", "forbid")
POLICIES = (*_ON, *_OFF)

_MEANINGS = {
    "force": "'force' is taken as on, and only where the accelerator supports it",
    "optional": "'optional' is taken as on, and left out where the accelerator does not support it",
    "forbid": "'forbid' is taken as off; a host that has the feature is not refused",
}


@dataclass(frozen=True)
class LibvirtCPU:
    """A CPU as libvirt describes it; `features` are pairs of libvirt's name and a policy.

    `model` is given in mode `custom` only. `vendor` is libvirt's name of the vendor that the host
    must have, `vendor_id` the vendor that the guest sees in place of the model's. `check` is `full`
    where a guest without all of it must not start, `none` where that is no matter. None leaves a
    value to the model.
    """

    mode: str = "custom"
    model: str | None = None
    vendor: str | None = None
    vendor_id: str | None = None
    phys_bits: int | None = None
    l3_cache: bool | None = None
    check: str | None = None
    features: tuple[tuple[str, str], ...] = ()


def describe(
    cpu: CPUState, models: Models, names: LibvirtNames
) -> tuple[LibvirtCPU, tuple[str, ...]]:
    """`cpu` in libvirt's terms, and what they cannot express (see `Exported.lost`)."""
    if cpu.model.dynamic:
        return _describe_dynamic(cpu, names)
    expansion = cpu.expand()
    wanted = expansion.features
    known = _libvirt_class(cpu, wanted, expansion.identity, models, names)
    held = held_features(known, names)
    # A feature of libvirt's model that lacks what it requires is inert: no need to disable it.
    on, off = wanted - held, usable(held | wanted, names) - wanted
    plus, minus = signed_features(known, wanted)
    on, off = on | wanted.table.set(plus), off | wanted.table.set(minus)
    identity = changed_identity(type(cpu), expansion.identity, known)
    described = LibvirtCPU(
        model=names.guest_name(known.model.name),
        vendor=vendor_of(known.model.name, names) if "vendor" not in identity else None,
        vendor_id=identity.pop("vendor") if identity.get("vendor") else None,
        phys_bits=identity.pop("phys-bits", None) or None,
        l3_cache=identity.pop("l3-cache", None),
        check=_check(cpu),
        features=_policies(on, off, names),
    )
    lost = switched(on - names.nameable, off - names.nameable)
    return described, (*settings(identity), *lost)


def _describe_dynamic(cpu: CPUState, names: LibvirtNames) -> tuple[LibvirtCPU, tuple[str, ...]]:
    if cpu.model.name not in MODES:
        raise ModelError(f"libvirt has no name for CPU model '{cpu.model.name}'")
    on, off = given_features(cpu)
    identity = given_identity(cpu)
    described = LibvirtCPU(
        mode=MODES[cpu.model.name],
        phys_bits=identity.pop("phys-bits", None) or None,
        l3_cache=identity.pop("l3-cache", None),
        check=_check(cpu),
        features=_policies(on, off, names),
    )
    lost = switched(on - names.nameable, off - names.nameable)
    return described, (*settings(identity), *lost)


def resolve(described: LibvirtCPU, arch: str, models: Models, names: LibvirtNames) -> Imported:
    """The request for the CPU that `described` is, as libvirt understands it.

    Raises `NotFoundError` for a model that neither libvirt nor cpufw has, `FormatError` for a
    feature that is there twice.
    """
    notes: list[str] = []
    on, off = _switched(described, names, notes)
    if described.mode != "custom":
        name = _MODELS_OF_MODES[described.mode]
        if described.mode == "host-model":
            notes.append("host-model: taken as host, which is all that the accelerator gives")
        cpu_class = models.find_model(name, arch)
        request = _plain_request(cpu_class, on, off, _properties(described, cpu_class, notes))
        return Imported(request, tuple(notes))
    if described.model is None:
        raise FormatError("the CPU has no model")
    cpu_class = class_of(described.model, arch, models, names)
    if cpu_class.model.dynamic:
        properties = _properties(described, cpu_class, notes)
        return Imported(_plain_request(cpu_class, on, off, properties), tuple(notes))
    held = held_features(cpu_class, names, described.model)
    asked = (held | on) - off
    wanted = usable(asked, names)
    for feature, lacking in asked.unmet().items():
        if feature in on - wanted:
            notes.append(f"{feature} requires {', '.join(lacking)}, which is off: it is left out")
    _tell_difference(described.model, cpu_class, names, usable(held, names), on | off, notes)
    _check_vendor(described, cpu_class, names, notes)
    properties = _properties(described, cpu_class, notes)
    return Imported(request_for(cpu_class, wanted, properties), tuple(notes))


# --- writing -----------------------------------------------------------------------------


def _libvirt_class(
    cpu: CPUState, wanted: FeatureSet, identity: Any, models: Models, names: LibvirtNames
) -> CPUClass:
    """The CPU type to name to libvirt: this one, or the nearest of those that libvirt knows."""
    arch = cpu.model.arch
    for ours in filter(None, names.map.guests.values()):
        cpu_class = models.find_model(ours, arch)
        if cpu_class.model.family == cpu.model.family:
            return cpu_class
    if not names.map.models or cpu.model.name in names.map.models:
        return type(cpu)
    known = [model for model in named_models(models, arch) if model.name in names.map.models]
    distance = {}
    for model in known:
        held = names.model(model.name)
        assert held is not None
        distance[model.name] = len(wanted - held) + len(usable(held | wanted, names) - wanted)
    found = nearest_model(known, distance, identity)
    if found is None:
        raise ModelError(f"libvirt has no CPU model like '{cpu.model.name}'")
    return models.find_model(found.name, arch)


def held_features(cpu_class: CPUClass, names: LibvirtNames, name: str | None = None) -> FeatureSet:
    """What libvirt takes for granted of its model: its own features, and what QEMU adds unasked."""
    cpu: CPUState = cpu_class()
    own = cpu.expand().features
    held = names.model(name or cpu_class.model.name)
    if held is None:
        return own
    always = own.table.set(each for each in cpu.always_on if each in own)
    return held | always | (own - names.nameable)


def usable(features: FeatureSet, names: LibvirtNames) -> FeatureSet:
    """What a guest finds of `features`; some of a libvirt model lack what they require.

    Without such models the features are left as they are; not every architecture minds.
    """
    return runnable(features) if names.map.models else features


def _check(cpu: CPUState) -> str | None:
    if cpu.get("enforce"):
        return "full"
    return None if cpu.get("check") else "none"


def _policies(on: FeatureSet, off: FeatureSet, names: LibvirtNames) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, "require" if feature in on else "disable")
        for feature in on | off
        for name in names.of(feature)
    )


# --- reading -----------------------------------------------------------------------------


def _switched(
    described: LibvirtCPU, names: LibvirtNames, notes: list[str]
) -> tuple[FeatureSet, FeatureSet]:
    policies: dict[str, str] = {}
    for name, policy in described.features:
        if policy not in POLICIES:
            near = nearest(policy, POLICIES)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(POLICIES)}"
            raise FormatError(f"feature {name}: policy '{policy}' is not known; {hint}")
        feature = names.feature(name)
        if feature is None:
            near = nearest(name, [each.name for each in names.table])
            hint = "" if name in names.map.features or not near else f"; did you mean {near[0]}?"
            notes.append(f"feature {name} ({policy}) is not known here and left out{hint}")
            continue
        if policies.setdefault(feature, policy) != policy:
            raise FormatError(f"feature {name} is there twice: {policies[feature]} and {policy}")
        if policy in _MEANINGS:
            notes.append(f"feature {name}: {_MEANINGS[policy]}")
    table = names.table
    return (
        table.set(name for name, policy in policies.items() if policy in _ON),
        table.set(name for name, policy in policies.items() if policy in _OFF),
    )


def class_of(name: str, arch: str, models: Models, names: LibvirtNames) -> CPUClass:
    """The CPU type for libvirt's model: of the same name, or nearest to its features."""
    catalogue = models.catalogue(arch)
    ours = names.renamed(name)
    if ours is None:
        raise FormatError(
            f"libvirt's {name} is a CPU that QEMU, and cpufw with it, has no model of"
        )
    if ours in catalogue:
        return models.find_model(ours, arch)
    held = names.model(name)
    if held is None:
        known = {*names.map.models, *(model.name for model in catalogue)}
        raise NotFoundError("CPU model", name, known)
    identity = {}
    vendors = {theirs: ours for ours, theirs in names.map.vendors.items()}
    vendor = names.map.models[name].vendor
    if vendor is not None:
        identity["vendor"] = vendors[vendor]
    candidates = named_models(models, arch)
    distance = {model.name: len(model.features ^ runnable(held)) for model in candidates}
    found = nearest_model(candidates, distance, identity)
    if found is None:
        raise NotFoundError("CPU model", name)
    return models.find_model(found.name, arch)


def _tell_difference(
    name: str,
    cpu_class: CPUClass,
    names: LibvirtNames,
    held: FeatureSet,
    named: FeatureSet,
    notes: list[str],
) -> None:
    own = own_features(cpu_class)
    if cpu_class.model.name != name and name in names.map.models:
        notes.append(f"{name} is libvirt's alone: {cpu_class.model.name} is nearest")
    elif cpu_class.model.name == name:
        signs = [f"+{each}" for each in held - own - named]
        signs += [f"-{each}" for each in own - held - named]
        if signs:
            notes.append(f"libvirt's {name} is not QEMU's: {', '.join(signs)}")


def _check_vendor(
    described: LibvirtCPU, cpu_class: CPUClass, names: LibvirtNames, notes: list[str]
) -> None:
    vendor = vendor_of(cpu_class.model.name, names)
    if described.vendor is not None and described.vendor != vendor:
        notes.append(f"vendor {described.vendor}: that the host must be of it is left out")


def _plain_request(
    cpu_class: CPUClass, on: FeatureSet, off: FeatureSet, properties: dict[str, str]
) -> CPURequest:
    """The request for a model whose features only the accelerator knows."""
    return CPURequest(cpu_class.model.name, tuple(on), tuple(off), properties)


def _properties(described: LibvirtCPU, cpu_class: CPUClass, notes: list[str]) -> dict[str, str]:
    values: dict[str, Any] = {
        "vendor": described.vendor_id,
        "phys-bits": described.phys_bits,
        "l3-cache": described.l3_cache,
        "enforce": True if described.check == "full" else None,
        "check": False if described.check == "none" else None,
    }
    found = {}
    for name, value in values.items():
        if value is None:
            continue
        spec = cpu_class.properties.get(name)
        if spec is None:
            notes.append(f"{name}={value}: {cpu_class.model.name} has no such property")
        else:
            text = spelled(spec.parse(value, cpu_class.type_name))
            if "," in text:
                notes.append(f"{name} is left out: '{text}' has a comma")
            else:
                found[name] = text
    return found


def vendor_of(name: str, names: LibvirtNames) -> str | None:
    """The name of the vendor of libvirt's model `name`; None for a model of no vendor."""
    model = names.map.models.get(name)
    return model.vendor if model is not None else None
