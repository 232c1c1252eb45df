"""Firecracker's CPU templates for aarch64: bitmaps of ID registers, and what KVM turns on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cpufw.core.model import CPURequest
from cpufw.errors import CpufwError, FormatError, ModelError
from cpufw.formats.firecracker import (
    Bits,
    bitmap,
    dump_template,
    entries,
    looks_like_template,
    parse_bitmap,
    parse_template,
    registers,
)
from cpufw.formats.format import Exported, Imported, Models
from cpufw.formats.requests import named_models, switched
from cpufw_arm.cpu import switches
from cpufw_arm.fields import field_of, layout
from cpufw_arm.formats.sysreg_ids import SYSREG_IDS

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUClass, CPUState

KVMS_OWN = frozenset(
    {
        "ID_AA64PFR0_EL1.EL2",
        "ID_AA64PFR0_EL1.EL3",
        "ID_AA64PFR0_EL1.GIC",
        "ID_AA64DFR0_EL1.PMUVer",
    }
)
"""Fields that follow from what KVM gives a VM; it refuses other values."""

# KVM_ARM_VCPU_SVE, _PTRAUTH_ADDRESS and _PTRAUTH_GENERIC (Linux arm64 asm/kvm.h) with the
# capabilities that the host must have for them (linux/kvm.h).
_VCPU_FEATURES = {"sve": ((4, 170),), "pauth": ((5, 171), (6, 172))}


class FirecrackerTemplate:
    """A custom CPU template: the named fields of the ID registers are the model's."""

    def __init__(self, arch: str) -> None:
        self.arch = arch

    def recognises(self, text: str) -> bool:
        """Whether this is JSON with the lists of an aarch64 template."""
        return looks_like_template(text, "reg_modifiers", "vcpu_features")

    def write(self, cpu: CPUState, models: Models) -> Exported:
        """The template that gives a guest the model's ID registers."""
        del models
        values = id_registers_of(cpu)
        features = cpu.expand().features
        shown = [name for name in SYSREG_IDS if name in values]
        if not shown:
            raise ModelError(f"CPU model '{cpu.model.name}' has no ID registers of AArch64")
        known = value = 0
        capabilities = []
        for name, parts in _VCPU_FEATURES.items():
            for bit, capability in parts:
                known |= 1 << bit
                if name in features:
                    value |= 1 << bit
                    capabilities.append(str(capability))
        template: dict[str, list[Any]] = {
            "kvm_capabilities": capabilities,
            "vcpu_features": [{"index": 0, "bitmap": bitmap(Bits(known, value), 7)}],
            "reg_modifiers": [
                {
                    "addr": f"{SYSREG_IDS[name]:#x}",
                    "bitmap": bitmap(Bits(named_bits(name), values[name]), 64),
                }
                for name in shown
            ],
        }
        model = cpu.model.features
        unsaid = features.table.set(each.name for each in features.table if _unsaid(each.places))
        elsewhere = [name for name in values if name not in (*shown, "MPIDR_EL1") and values[name]]
        lost = (
            *(f"{name}={values[name]:#x}" for name in elsewhere),
            *switched(features & unsaid, (model - features) & unsaid),
        )
        return Exported(dump_template(template), lost)

    def read(self, text: str, models: Models) -> Imported:
        """The nearest model to the fields that the template says."""
        template = parse_template(text)
        if not {"reg_modifiers", "vcpu_features"} & template.keys():
            raise FormatError("the template has neither reg_modifiers nor vcpu_features")
        names = {identifier: name for name, identifier in SYSREG_IDS.items()}
        wanted: dict[str, Bits] = {}
        notes = [
            f"{key} is not part of a CPU model" for key in template if key[:3] in ("cpu", "msr")
        ]
        for address, bits in registers(template, "reg_modifiers", 64, 128).items():
            if address in names:
                wanted[names[address]] = bits
            else:
                notes.append(f"register {address:#x} is not known here and left out")
        off = _turned_off(template)
        candidates = list(_nearest(models, self.arch, wanted))
        if not candidates:
            raise FormatError(f"there is no {self.arch} model with ID registers of AArch64")
        cpu_class = candidates[0]
        minus = _switches(cpu_class, wanted, off)
        left = id_registers_of(cpu_class(**dict.fromkeys(minus, False)))
        notes += [
            f"{field} is {theirs:#x} there and {ours:#x} here"
            for field, theirs, ours in _differences(wanted, left)
        ]
        return Imported(CPURequest(cpu_class.model.name, (), minus), tuple(notes))


def id_registers_of(cpu: CPUState) -> Mapping[str, int]:
    """The ID registers of `cpu`, alone and without an accelerator, by name."""
    cpu.realize()
    try:
        return dict(cpu.id_registers)  # type: ignore[attr-defined]
    finally:
        cpu.unrealize()


def named_bits(register: str) -> int:
    """The bits of an ID register that a template may set: its fields with a name, but KVM's own."""
    return sum(
        ((1 << field.width) - 1) << field.low
        for field in layout(register)
        if "[" not in field.name and field.name not in KVMS_OWN
    )


def _unsaid(places: tuple[str, ...]) -> bool:
    """Whether no bit of a template stands for a feature with these places."""
    fields = [field_of(place.partition(":")[0]) for place in places]
    known = [field for field in fields if field is not None and field.register in SYSREG_IDS]
    return (not known and "FEAT_PAuth" not in places) or any(f.name in KVMS_OWN for f in known)


def _turned_off(template: Mapping[str, list[Any]]) -> list[str]:
    """The features that the template keeps KVM from turning on."""
    off = []
    for where, entry in entries(template, "vcpu_features"):
        bits = parse_bitmap(entry.get("bitmap"), 32, f"{where}.bitmap")
        for name, parts in _VCPU_FEATURES.items():
            mask = sum(1 << bit for bit, _ in parts)
            if entry.get("index") == 0 and bits.known & mask == mask and not bits.value & mask:
                off.append(name)
    return off


def _nearest(models: Models, arch: str, wanted: Mapping[str, Bits]) -> Iterator[CPUClass]:
    """The models that have ID registers of AArch64, the one with the fewest differences first."""
    found = []
    for model in named_models(models, arch):
        cpu_class = models.find_model(model.name, arch)
        values = id_registers_of(cpu_class())
        if SYSREG_IDS.keys() & values.keys():
            found.append((_distance(wanted, values), cpu_class))
    return (cpu_class for _, cpu_class in sorted(found, key=lambda pair: pair[0]))


def _distance(wanted: Mapping[str, Bits], values: Mapping[str, int]) -> int:
    return sum(1 for _ in _differences(wanted, values))


def _differences(
    wanted: Mapping[str, Bits], values: Mapping[str, int]
) -> Iterator[tuple[str, int, int]]:
    """Each field that differs: its name, what is wanted, and what it is."""
    for name, bits in wanted.items():
        for field in layout(name):
            mask = field.get(bits.known)
            theirs, ours = field.get(bits.value) & mask, field.get(values.get(name, 0)) & mask
            if theirs != ours:
                yield field.name, theirs, ours


def _switches(cpu_class: CPUClass, wanted: Mapping[str, Bits], off: list[str]) -> tuple[str, ...]:
    """The features to turn off so that fewer fields differ."""
    model = cpu_class.model
    minus = [name for name in off if name in model.features]
    best = _distance(wanted, id_registers_of(cpu_class(**dict.fromkeys(minus, False))))
    for feature in model.table:
        if feature.name not in switches(model) & {*model.features} or feature.name in minus:
            continue
        try:
            values = id_registers_of(cpu_class(**dict.fromkeys([*minus, feature.name], False)))
        except CpufwError:
            continue  # the model cannot be without it
        if _distance(wanted, values) < best:
            minus.append(feature.name)
            best = _distance(wanted, values)
    return tuple(minus)
