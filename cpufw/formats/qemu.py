"""QEMU's `-cpu` strings."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from cpufw.core.model import CPUModel, CPURequest, parse_cpu
from cpufw.errors import FormatError, ModelError, PropertyError, UsageError, nearest
from cpufw.formats.format import Exported, Imported, Models
from cpufw.formats.requests import (
    changed_identity,
    given_features,
    given_identity,
    named_models,
    nearest_by_features,
    settings,
    signed_features,
    spelled,
    switched,
)

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUClass, CPUState

MAX_CHARACTERS = 1 << 16

_CPU_OPTION = re.compile(r"(?:^|\s)--?cpu(?:\s|$)")


class QemuString:
    """`Haswell,avx512f=on,rtm=off,enforce=on`; reads `+` and `-` and whole command lines too."""

    def __init__(self, arch: str) -> None:
        self.arch = arch

    def recognises(self, text: str) -> bool:
        """Whether this is one line, which is little to go by: ask the others first."""
        return 0 < len(text.strip()) <= MAX_CHARACTERS and "\n" not in text.strip()

    def write(self, cpu: CPUState, models: Models) -> Exported:
        """The value of `-cpu`."""
        lost: tuple[str, ...] = ()
        if cpu.model.dynamic:
            name = cpu.model.name
            on, off = map(tuple, given_features(cpu))
            identity = given_identity(cpu)
        else:
            known = self._qemu_class(cpu, models)
            name = known.model.name
            expansion = cpu.expand()
            on, off = signed_features(known, expansion.features)
            identity = changed_identity(type(cpu), expansion.identity, known)
        properties = {}
        for key, value in identity.items():
            if key in cpu.extra_properties and "," not in str(value):
                properties[key] = value
            else:
                lost += settings({key: value})
        behaviour = {key: cpu.given(key) for key in ("check", "enforce")}
        properties |= {key: value for key, value in behaviour.items() if value is not None}
        parts = [name, *switched(on, off)]
        parts += [f"{key}={spelled(value)}" for key, value in properties.items()]
        return Exported(",".join(parts) + "\n", lost)

    def read(self, text: str, models: Models) -> Imported:
        """The CPU of a `-cpu` value, or of a command line with one."""
        if len(text) > MAX_CHARACTERS:
            raise FormatError(f"more than {MAX_CHARACTERS} characters: this is no -cpu string")
        try:
            asked = parse_cpu(_cpu_value(text))
        except UsageError as error:
            raise FormatError(str(error).removeprefix("--cpu: ")) from None
        cpu_class = models.find_model(asked.model, self.arch)
        notes: list[str] = []
        switches: dict[str, bool] = {}
        properties: dict[str, str] = {}
        # As in QEMU: `+feature` and `-feature` go before all `feature=on`, `-` before `+`.
        for name, value in asked.properties.items():
            self._take(cpu_class, name, value, switches, properties, notes)
        for sign, names in (("on", asked.plus), ("off", asked.minus)):
            for name in names:
                self._take(cpu_class, name, sign, switches, properties, notes)
        request = CPURequest(
            asked.model,
            tuple(name for name, on in switches.items() if on),
            tuple(name for name, on in switches.items() if not on),
            properties,
        )
        cpu: CPUState = cpu_class(**request.settings())
        if not cpu.model.dynamic:
            cpu.expand()  # raises what contradicts itself
        return Imported(request, tuple(notes))

    @staticmethod
    def _take(
        cpu_class: CPUClass,
        name: str,
        value: str,
        switches: dict[str, bool],
        properties: dict[str, str],
        notes: list[str],
    ) -> None:
        known = cpu_class.properties
        # QEMU takes an underscore for a dash; a few names of features have one.
        spec = known.get(name) or known.get(name.replace("_", "-"))
        if spec is None:
            near = nearest(name, known)
            hint = f"; did you mean {near[0]}?" if near else ""
            notes.append(f"{name}={value} is not known here and left out{hint}")
        elif spec.name in cpu_class.model.table:
            switches[spec.name] = spec.parse(value, cpu_class.type_name)
        else:
            replace(spec, check=None).parse(value, cpu_class.type_name)
            try:
                spec.parse(value, cpu_class.type_name)
            except PropertyError as error:  # well-formed, but nothing that cpufw can give
                notes.append(f"{name}={value} is left out: {error}")
            else:
                properties[spec.name] = value

    def _qemu_class(self, cpu: CPUState, models: Models) -> CPUClass:
        """The CPU type to name to QEMU: this one, or the nearest that QEMU has."""
        if _is_qemus(cpu.model):
            return type(cpu)
        known = [model for model in named_models(models, self.arch) if _is_qemus(model)]
        expansion = cpu.expand()
        found = nearest_by_features(known, expansion.features, expansion.identity)
        if found is None:
            raise ModelError(f"QEMU has no CPU model like '{cpu.model.name}'")
        return models.find_model(found.name, self.arch)


def _is_qemus(model: CPUModel) -> bool:
    """Whether QEMU has the model: what comes from it says so as its source."""
    return model.source.startswith("QEMU ")


def _cpu_value(text: str) -> str:
    """The value of `-cpu` in a command line; without that option the text itself."""
    text = text.strip()
    if not _CPU_OPTION.search(text):
        return text.strip("'\"")
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise FormatError(f"this is not a command line: {error}") from None
    places = [index for index, word in enumerate(words) if word in ("-cpu", "--cpu")]
    if not places or places[-1] + 1 == len(words):
        raise FormatError("the command line has no value after -cpu")
    return words[places[-1] + 1]
