"""What `cpuid -r` prints: CPUID as a guest sees it, leaf by leaf."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

from cpufw.core.features import FeatureSet, FeatureTable
from cpufw.core.model import CPURequest
from cpufw.errors import CpufwError, DefinitionError, FormatError
from cpufw.formats.format import Exported, Imported, Models
from cpufw.formats.requests import (
    changed_identity,
    completed,
    given_behaviour,
    named_models,
    nearest_model,
    request_for,
    settings,
    spelled,
    switched,
)
from cpufw_x86.accelerator import identity_of_table
from cpufw_x86.cpuid import EXTENDED_BASE, CpuidTable
from cpufw_x86.words import feature_words

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUClass, CPUState
    from cpufw_x86.cpu import X86CPU

_LINE = re.compile(r"^\s*0x[0-9a-fA-F]{8} 0x[0-9a-fA-F]{2}: eax=0x", re.MULTILINE)
_HEADING = re.compile(r"\s*CPU( \d+)?:\s*$")
_MAX_LINES = 4096
_MAX_LEAVES_NAMED = 8

_TELLING = (("vendor",), ("family", "model"))
"""What tells more of which model it is than features, which hypervisors and firmware hide."""


class CpuidRaw:
    """One CPU's leaves as `cpuid -r` prints and `cpuid -f` reads them."""

    def __init__(self, arch: str) -> None:
        self.arch = arch

    def recognises(self, text: str) -> bool:
        """Whether there are lines of leaves at its beginning."""
        return bool(_LINE.search(text[:4096]))

    def write(self, cpu: CPUState, models: Models) -> Exported:
        """Every leaf that a guest sees; what is in MSRs or beyond the limits is lost."""
        del models
        table, expansion = guest_cpuid(cpu), cpu.expand()
        lost = unseen_values(cpu) | given_behaviour(cpu)
        features = expansion.features - feature_words(cpu.model.table).decode(table.words())
        return Exported(table.to_raw(), (*settings(lost), *switched(features, ())))

    def read(self, text: str, models: Models) -> Imported:
        """The nearest model to the first CPU of a dump, and what differs from it."""
        try:
            dump = CpuidTable.from_raw(_first_cpu(text))
        except DefinitionError as error:
            first, more = error.problems[0], len(error.problems) - 1
            raise FormatError(f"{first}{f' (and {more} more)' if more else ''}") from None
        catalogue = models.catalogue(self.arch)
        shown = feature_words(catalogue.table).decode(dump.words())
        identity = shown_identity(dump)
        return nearest_request(
            models, self.arch, shown, msr_features(catalogue.table), identity, dump
        )


def guest_cpuid(cpu: CPUState) -> CpuidTable:
    """What CPUID answers on `cpu`, alone and without an accelerator."""
    cpu.realize()
    try:
        alone: X86CPU = cpu  # type: ignore[assignment]
        return alone.cpuid
    finally:
        cpu.unrealize()


def msr_features(table: FeatureTable) -> FeatureSet:
    """The features that are not in CPUID."""
    return table.set(each.name for each in table if each.places[0].startswith("MSR."))


def unseen_values(cpu: CPUState) -> dict[str, Any]:
    """The identity values set on `cpu` that change nothing of what its guest reads in CPUID."""
    table = guest_cpuid(cpu)
    given = {name: cpu.given(name) for name in cpu.property_specs()}
    changed = changed_identity(type(cpu), cpu.expand().identity, type(cpu))
    unseen = {}
    for name, value in changed.items():
        others = {k: v for k, v in given.items() if v is not None and k != name}
        if guest_cpuid(type(cpu)(**others)) == table:
            unseen[name] = value
    return unseen


def _first_cpu(text: str) -> str:
    """The lines of a dump's first CPU. Raises `FormatError` if they are too many for one."""
    lines: list[str] = []
    for line in StringIO(text):
        if _HEADING.match(line) and any(map(str.strip, lines[1:])):
            break
        lines.append(line)
        if len(lines) > _MAX_LINES:
            raise FormatError(f"more than {_MAX_LINES} lines: no CPU has so many leaves")
    return "".join(lines)


def shown_identity(table: CpuidTable) -> dict[str, Any]:
    """The identity that CPUID shows, as far as the leaves for it are there."""
    identity = identity_of_table(table) | signature_identity(table.lookup(1)[0])
    if table.limit(EXTENDED_BASE) is None:
        for name in ("xlevel", "model-id", "phys-bits"):
            del identity[name]
        return identity
    if identity["xlevel"] < 0x80000004:
        del identity["model-id"]
    if identity["xlevel"] < 0x80000008:
        del identity["phys-bits"]
    return identity


def signature_identity(eax: int) -> dict[str, int]:
    """Family, model and stepping of leaf 1's EAX (Intel SDM vol. 2A, CPUID, figure 3-6).

    The extended model counts for every family: Zhaoxin uses it in family 7, others have zero.
    """
    family = eax >> 8 & 0xF
    return {
        "family": family + (eax >> 20 & 0xFF) if family == 0xF else family,
        "model": eax >> 4 & 0xF | (eax >> 16 & 0xF) << 4,
        "stepping": eax & 0xF,
    }


def nearest_request(
    models: Models,
    arch: str,
    on: FeatureSet,
    unknown: FeatureSet,
    identity: Mapping[str, Any],
    dump: CpuidTable | None = None,
) -> Imported:
    """The model that differs least from the features `on`, and what has to be changed of it.

    Of the `unknown` features the CPU keeps those of the model. `identity` holds what is known of
    it. Leaves of the `dump` that the result does not show are in the notes.
    """
    candidates = named_models(models, arch)
    distance = {each.name: len((each.features ^ on) - unknown) for each in candidates}
    model = nearest_model(candidates, distance, identity, _TELLING)
    if model is None:
        raise FormatError(f"there is no {arch} model to compare it with")
    cpu_class = models.find_model(model.name, arch)
    wanted = completed(cpu_class, on, unknown)
    notes = [
        f"{name} lacks {', '.join(missing)}, which it requires: it is left out"
        for name, missing in (on - wanted).table.set(on - wanted).unmet().items()
    ]
    request = request_for(cpu_class, wanted)
    properties = _differing_properties(cpu_class, request, identity, notes)
    request = CPURequest(request.model, request.plus, request.minus, properties)
    if dump is not None:
        other = guest_cpuid(cpu_class(**request.settings()))
        leaves = [
            f"{function:#x}.{index:#x}"
            for function, index in {**dump, **other}
            if dump.lookup(function, index) != other.lookup(function, index)
        ]
        if leaves:
            more = len(leaves) - _MAX_LEAVES_NAMED
            named = ", ".join(leaves[:_MAX_LEAVES_NAMED]) + (
                f" and {more} more" if more > 0 else ""
            )
            notes.append(f"what CPUID says in leaves {named} is not all expressed")
    return Imported(request, tuple(notes))


def _differing_properties(
    cpu_class: CPUClass, request: CPURequest, identity: Mapping[str, Any], notes: list[str]
) -> dict[str, str]:
    """The properties that give a CPU of that request the `identity`."""
    own = shown_identity(guest_cpuid(cpu_class(**request.settings())))
    properties = {}
    for name, value in identity.items():
        if value == own.get(name):
            continue
        text = spelled(value)
        try:
            cpu_class.properties[name].parse(value, cpu_class.type_name)
        except CpufwError as error:
            notes.append(f"{name} is left out: {error}")
            continue
        if "," in text:
            notes.append(f"{name} is left out: '{text}' has a comma")
        else:
            properties[name] = text
    return properties
