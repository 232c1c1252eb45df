"""Cloud Hypervisor: `--cpus`, which has no models and says almost nothing of features."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpufw.core.model import CPURequest
from cpufw.errors import FormatError
from cpufw.formats.format import Exported, Imported, Models
from cpufw.formats.requests import (
    given_behaviour,
    given_features,
    given_identity,
    settings,
    switched,
)
from cpufw.formats.text import check_size, parse_json

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUState

AMX = ("amx-tile", "amx-int8", "amx-bf16", "amx-fp16", "amx-complex")
"""The features that its `amx` lets through."""

NESTED = ("vmx", "svm")
"""The features that its `nested` lets through."""

_OPTIONS = {
    "boot": "boot_vcpus",
    "max": "max_vcpus",
    "topology": "topology",
    "kvm_hyperv": "kvm_hyperv",
    "max_phys_bits": "max_phys_bits",
    "affinity": "affinity",
    "features": "features",
    "nested": "nested",
    "core_scheduling": "core_scheduling",
}
"""The parts of `--cpus`, and what the API calls them."""

_MAX_CHARACTERS = 1 << 16
_OF_THE_MODEL = {"kvm_hyperv", "max_phys_bits", "features", "nested"}
_OPTION = re.compile(r"(?:--cpus[ =])?\s*boot=\d+(,|\s*$)")
_PART = re.compile(r"(?:[^,\[\]]|\[(?:[^\[\]]|\[[^\[\]]*\])*\])+")


class CloudHypervisorCpus:
    """The API's `cpus` object; reads the option `--cpus` too."""

    def __init__(self, arch: str) -> None:
        self.arch = arch

    def recognises(self, text: str) -> bool:
        """Whether it names the number of vCPUs at boot, which both spellings must."""
        return '"boot_vcpus"' in text or bool(_OPTION.match(text.strip()))

    def write(self, cpu: CPUState, models: Models) -> Exported:
        """The object, for one vCPU; the guest sees its host's CPU but for AMX, VMX and SVM."""
        del models
        table = cpu.model.table
        amx, nested = table.set(AMX), table.set(NESTED)
        if cpu.model.dynamic:
            on, off = given_features(cpu)
            identity = given_identity(cpu)
            with_nested = not off & nested
        else:
            expansion = cpu.expand()
            on, off = expansion.features, table.empty
            known = {*cpu.extra_properties, *cpu.model.identity}
            identity = {k: v for k, v in expansion.identity.items() if k in known}
            with_nested = bool(on & nested)
        bits = identity.pop("phys-bits", None)
        cpus: dict[str, Any] = {"boot_vcpus": 1, "max_vcpus": 1}
        if bits:
            cpus["max_phys_bits"] = bits
        cpus |= {"kvm_hyperv": False, "nested": with_nested, "features": {"amx": bool(on & amx)}}
        name = () if cpu.model.name == "host" else (f"name={cpu.model.name}",)
        identity |= given_behaviour(cpu)
        sayable = amx | nested
        lost = (*name, *settings(identity), *switched(on - sayable, off - sayable))
        return Exported(json.dumps({"cpus": cpus}, indent=2) + "\n", lost)

    def read(self, text: str, models: Models) -> Imported:
        """The host's CPU, without what the options hold back."""
        options = _options(text)
        notes = [
            f"{name} is not part of a CPU model" for name in options if name not in _OF_THE_MODEL
        ]
        if _switch(options, "kvm_hyperv", False):
            notes.append("kvm_hyperv: Hyper-V's interface is not known here and left out")
        features = options.get("features", {})
        unknown = [name for name in features if name != "amx"]
        notes += [f"feature {name} is not known here and left out" for name in unknown]
        minus: tuple[str, ...] = () if features.get("amx") else AMX
        minus += () if _switch(options, "nested", True) else NESTED
        properties = {}
        if "max_phys_bits" in options:
            notes.append("max_phys_bits is a limit, here it is the number of address bits")
            spec = models.find_model("host", self.arch).properties["phys-bits"]
            properties["phys-bits"] = str(spec.parse(options["max_phys_bits"], "cpus"))
        return Imported(CPURequest("host", (), minus, properties), tuple(notes))


def _switch(options: Mapping[str, Any], name: str, default: bool) -> bool:
    value = options.get(name, default)
    known = {True: True, False: False, "on": True, "off": False, "true": True, "false": False}
    if not isinstance(value, bool | str) or value not in known:
        raise FormatError(f"{name}={value} is not valid, expected on or off")
    return known[value]


def _options(text: str) -> dict[str, Any]:
    check_size(text, _MAX_CHARACTERS)
    if text.lstrip().startswith("{"):
        return _options_of_json(parse_json(text))
    given = text.strip().removeprefix("--cpus").lstrip(" =").strip("'\"")
    options: dict[str, Any] = {}
    for part in _PART.findall(given):
        name, equals, value = part.partition("=")
        if not equals or name not in _OPTIONS:
            raise FormatError(f"--cpus: '{part}' is not known; there is {', '.join(_OPTIONS)}")
        options[_OPTIONS[name]] = value
    if "features" in options:
        names = options["features"].strip("[]").split(",")
        options["features"] = {name.strip(): True for name in names if name.strip()}
    return options


def _options_of_json(document: Any) -> dict[str, Any]:
    cpus = document.get("cpus", document) if isinstance(document, dict) else None
    if not isinstance(cpus, dict) or "boot_vcpus" not in cpus:
        raise FormatError("this is no configuration of CPUs: boot_vcpus is missing")
    for name in cpus:
        if name not in _OPTIONS.values():
            raise FormatError(f"'{name}' is not known; there is {', '.join(_OPTIONS.values())}")
    if not isinstance(cpus.get("features", {}), dict):
        raise FormatError('features is not an object like {"amx": true}')
    return {name: value for name, value in cpus.items() if value is not None}
