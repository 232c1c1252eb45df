"""Firecracker's CPU templates for x86: bitmaps of CPUID registers and MSRs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpufw.core.features import FeatureSet, FeatureTable
from cpufw.core.model import Expansion
from cpufw.errors import FormatError
from cpufw.formats.firecracker import (
    Bits,
    bitmap,
    dump_template,
    entries,
    looks_like_template,
    parse_bitmap,
    parse_number,
    parse_template,
    registers,
)
from cpufw.formats.format import Exported, Imported, Models
from cpufw.formats.requests import changed_identity, given_behaviour, settings, switched
from cpufw_x86.cpuid import (
    CENTAUR_BASE,
    EXTENDED_BASE,
    HYPERVISOR_BASE,
    INDEXED_FUNCTIONS,
    REGISTER_NAMES,
    CpuidTable,
    word_place,
)
from cpufw_x86.cpuid_words import derived_words
from cpufw_x86.feature_msrs import CONTROLS
from cpufw_x86.formats.cpuid_raw import (
    guest_cpuid,
    msr_features,
    nearest_request,
    signature_identity,
    unseen_values,
)
from cpufw_x86.identity import AMD
from cpufw_x86.properties import LEVELS
from cpufw_x86.words import feature_words

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUState

Place = tuple[int, int, int]
"""A CPUID register: function, index, and number of the register (0 = EAX)."""

SIGNATURE = (0x1, 0, 0)
SIGNATURE_BITS = 0x0FFF3FFF  # Intel SDM vol. 2A, CPUID, figure 3-6: the other four are reserved
LEVEL, XLEVEL, XLEVEL2 = (0x0, 0, 0), (EXTENDED_BASE, 0, 0), (CENTAUR_BASE, 0, 0)
LAST_SUBLEAF_OF_7 = (0x7, 0, 0)
ADDRESS_BITS = (0x80000008, 0, 0)
AVX10_VERSION = (0x24, 0, 1)
_WHOLE = 0xFFFFFFFF
_LOW_BYTE = 0xFF

_GATES = {0xD: "xsave", 0x12: "sgx", 0x14: "intel-pt", 0x24: "avx10"}
"""Leaves that say something only with a feature; without it not every host has all of them."""

_SAYABLE = frozenset(
    {
        *("family", "model", "stepping", "phys-bits", "avx10-version", *LEVELS),
        *("min-level", "min-xlevel", "min-xlevel2"),
        *("full-cpuid-auto-level", "x-intel-pt-auto-level"),
    }
)
"""The identity values that the template's registers hold."""

# What Firecracker sets after the template, whatever it says (its cpuid-normalization.md).
_FORCED = {"tsc-deadline": True, "hypervisor": True, "pdcm": False}
_FORCED_ON_AMD = {"arch-capabilities": False, "topoext": True}


class FirecrackerTemplate:
    """A custom CPU template: the bits that cpufw knows are the model's, the rest the host's."""

    def __init__(self, arch: str) -> None:
        self.arch = arch

    def recognises(self, text: str) -> bool:
        """Whether this is JSON with the lists of an x86 template."""
        return looks_like_template(text, "cpuid_modifiers", "msr_modifiers")

    def write(self, cpu: CPUState, models: Models) -> Exported:
        """The template that gives a guest the model's features, limits and signature."""
        del models
        expansion = cpu.expand()
        leaves: dict[tuple[int, int], list[dict[str, str]]] = {}
        for (function, index, register), bits in sorted(_cpuid_bits(cpu, expansion).items()):
            leaves.setdefault((function, index), []).append(
                {"register": REGISTER_NAMES[register].lower(), "bitmap": bitmap(bits, 32)}
            )
        template: dict[str, list[Any]] = {
            "cpuid_modifiers": [
                {
                    "leaf": f"{function:#x}",
                    "subleaf": f"{index:#x}",
                    # KVM_CPUID_FLAG_SIGNIFCANT_INDEX; Firecracker takes it over as it is.
                    "flags": int(function in INDEXED_FUNCTIONS),
                    "modifiers": modifiers,
                }
                for (function, index), modifiers in leaves.items()
            ],
            "msr_modifiers": [
                {"addr": f"{address:#x}", "bitmap": bitmap(bits, 64)}
                for address, bits in sorted(_msr_bits(expansion.features).items())
            ],
        }
        return Exported(dump_template(template), _lost(cpu, expansion))

    def read(self, text: str, models: Models) -> Imported:
        """The nearest model to the bits that the template sets and clears."""
        template = parse_template(text)
        if "cpuid_modifiers" not in template and "msr_modifiers" not in template:
            raise FormatError("the template has neither cpuid_modifiers nor msr_modifiers")
        table = models.catalogue(self.arch).table
        cpuid = _read_cpuid(template)
        msrs = registers(template, "msr_modifiers", 32, 64)
        words = {_word(place): bits for place, bits in cpuid.items()}
        for index, bits in msrs.items():
            shift = _word_shift(index)
            words[f"MSR.{index:X}"] = Bits(bits.known >> shift, bits.value >> shift)
        decode = feature_words(table).decode
        known = decode({name: bits.known for name, bits in words.items()})
        on = decode({name: bits.known & bits.value for name, bits in words.items()})
        known |= _out_of_range(table, cpuid)
        everything = table.set(each.name for each in table)
        identity = _identity(cpuid)
        read = nearest_request(models, self.arch, on, everything - known, identity)
        notes = [f"{key} is not part of a CPU model" for key in template if "_modifiers" not in key]
        return Imported(read.request, (*notes, *_ownerless(table, words), *read.notes))


# --- writing -----------------------------------------------------------------------------


def _cpuid_bits(cpu: CPUState, expansion: Expansion) -> dict[Place, Bits]:
    """The bits of each CPUID register that are the model's."""
    table = cpu.model.table
    vendor = expansion.identity.get("vendor", "")
    cpuid = guest_cpuid(cpu)
    everything = FeatureSet(table, (1 << len(table)) - 1)
    known = derived_words(vendor, feature_words(table).encode(everything))
    found = {LEVEL: Bits(_WHOLE, cpuid.lookup(0)[0])}
    found[SIGNATURE] = Bits(SIGNATURE_BITS, cpuid.lookup(1)[0])
    found[XLEVEL] = Bits(_WHOLE, cpuid.limit(EXTENDED_BASE) or 0)
    if cpuid.limit(CENTAUR_BASE) is not None:
        found[XLEVEL2] = Bits(_WHOLE, cpuid.limit(CENTAUR_BASE) or 0)
    for name, mask in known.items():
        if name.startswith("MSR."):
            continue
        place = word_place(name)
        value = cpuid.get(place[:2])
        bits = Bits(mask, value.registers[place[2]] & mask if value else 0)
        if bits.value or _belongs(place, cpuid, expansion.features):
            found[place] = bits
    if cpuid.lookup(0)[0] >= 0x7:
        found[LAST_SUBLEAF_OF_7] = Bits(_WHOLE, cpuid.lookup(7)[0])
    if (cpuid.limit(EXTENDED_BASE) or 0) >= ADDRESS_BITS[0]:
        found[ADDRESS_BITS] = Bits(_LOW_BYTE, cpuid.lookup(ADDRESS_BITS[0])[0])
    if AVX10_VERSION in found:
        known_bits, value_bits = found[AVX10_VERSION]
        version = cpuid.lookup(AVX10_VERSION[0])[AVX10_VERSION[2]] & _LOW_BYTE
        found[AVX10_VERSION] = Bits(known_bits | _LOW_BYTE, value_bits | version)
    return found


def _belongs(place: Place, cpuid: CpuidTable, features: FeatureSet) -> bool:
    """Whether a register without any of the model's features is to be cleared of them.

    Firecracker refuses a template with a leaf that the host lacks, so leaves that a guest is not
    to see anyway are left out; KVM's own stay as KVM wants them.
    """
    function, index, _ = place
    base = function & 0xC0000000
    if base == HYPERVISOR_BASE or function > (cpuid.limit(base) or 0):
        return False
    if function in _GATES:
        return _GATES[function] in features
    return index == 0 or (function == 7 and index <= cpuid.lookup(7)[0])


def _msr_bits(features: FeatureSet) -> dict[int, Bits]:
    """The bits of each feature MSR that are the model's; MSRs without any are left out."""
    table = features.table
    words = feature_words(table)
    known = words.encode(FeatureSet(table, (1 << len(table)) - 1))
    found = {}
    for name, value in words.encode(features).items():
        if name.startswith("MSR."):
            index = int(name.removeprefix("MSR."), 16)
            shift = _word_shift(index)
            found[index] = Bits(known[name] << shift, value << shift)
    return found


def _word_shift(index: int) -> int:
    """Where in an MSR its word of features begins; below it is what the host insists on."""
    return 32 if index in CONTROLS else 0


def _lost(cpu: CPUState, expansion: Expansion) -> tuple[str, ...]:
    identity = {
        name: expansion.identity[name]
        for name in ("vendor", "model-id", "caches")
        if name in expansion.identity
    }
    changed = changed_identity(type(cpu), expansion.identity, type(cpu))
    identity |= {name: value for name, value in changed.items() if name not in _SAYABLE}
    identity |= unseen_values(cpu)
    forced = dict(_FORCED)
    if expansion.identity.get("vendor") == AMD:
        forced |= _FORCED_ON_AMD
    features = expansion.features
    hidden = features - msr_features(features.table)
    hidden -= feature_words(features.table).decode(guest_cpuid(cpu).words())
    on = [name for name, value in forced.items() if not value and name in features - hidden]
    off = [name for name, value in forced.items() if value and name not in features]
    return (*settings(identity | given_behaviour(cpu)), *switched((*hidden, *on), off))


# --- reading -----------------------------------------------------------------------------


def _read_cpuid(template: Mapping[str, list[Any]]) -> dict[Place, Bits]:
    found: dict[Place, Bits] = {}
    names = [name.lower() for name in REGISTER_NAMES]
    for where, entry in entries(template, "cpuid_modifiers"):
        function = parse_number(entry.get("leaf"), 32, f"{where}.leaf")
        index = parse_number(entry.get("subleaf"), 32, f"{where}.subleaf")
        modifiers = entry.get("modifiers")
        if not isinstance(modifiers, list):
            raise FormatError(f"{where}.modifiers is not a list")
        for each in modifiers:
            register = each.get("register") if isinstance(each, dict) else None
            if register not in names:
                raise FormatError(f"{where}: {register!r} is no register, expected eax to edx")
            place = (function, index, names.index(register))
            if place in found:
                raise FormatError(f"{where}: {register} of leaf {function:#x} is there twice")
            found[place] = parse_bitmap(each.get("bitmap"), 32, f"{where}.{register}")
    return found


def _word(place: Place) -> str:
    function, index, register = place
    subleaf = f".{index}" if function in INDEXED_FUNCTIONS else ""
    return f"{function:X}{subleaf}.{REGISTER_NAMES[register]}"


def _limit(cpuid: Mapping[Place, Bits], place: Place) -> int | None:
    """The whole register, if the template says all of it."""
    bits = cpuid.get(place)
    return bits.value if bits and bits.known == _WHOLE else None


def _out_of_range(table: FeatureTable, cpuid: Mapping[Place, Bits]) -> FeatureSet:
    """The features in leaves that the template puts out of the guest's sight."""
    limits = {
        LEVEL[0]: _limit(cpuid, LEVEL),
        EXTENDED_BASE: _limit(cpuid, XLEVEL),
        CENTAUR_BASE: _limit(cpuid, XLEVEL2),
    }
    last_subleaf = _limit(cpuid, LAST_SUBLEAF_OF_7)
    found = []
    for feature in table:
        word = feature.places[0].rpartition(":")[0]
        if word.startswith("MSR."):
            continue
        function, index, _ = word_place(word)
        limit = limits.get(function & 0xC0000000)
        hidden = limit is not None and function > limit
        if hidden or (function == 7 and last_subleaf is not None and index > last_subleaf):
            found.append(feature.name)
    return table.set(found)


def _identity(cpuid: Mapping[Place, Bits]) -> dict[str, Any]:
    """What the template says of the identity."""
    identity: dict[str, Any] = {}
    signature = cpuid.get(SIGNATURE)
    if signature and not 0x0FFF0FFF & ~signature.known:
        identity |= signature_identity(signature.value)
    for name, place in (("level", LEVEL), ("xlevel", XLEVEL)):
        limit = _limit(cpuid, place)
        if limit:
            identity[name] = limit
    bits = cpuid.get(ADDRESS_BITS)
    if bits and bits.known & _LOW_BYTE == _LOW_BYTE:
        identity["phys-bits"] = bits.value & _LOW_BYTE
    return identity


def _ownerless(table: FeatureTable, words: Mapping[str, Bits]) -> list[str]:
    """A note on the bits that the template sets and that nothing of cpufw stands for."""
    owned = derived_words(
        AMD, feature_words(table).encode(FeatureSet(table, (1 << len(table)) - 1))
    )
    read = {_word(LEVEL), _word(SIGNATURE), _word(XLEVEL), _word(XLEVEL2)}
    read |= {_word(LAST_SUBLEAF_OF_7), _word(ADDRESS_BITS), _word(AVX10_VERSION)}
    found = []
    for word, bits in words.items():
        rest = 0 if word in read else bits.value & ~owned.get(word, 0)
        found += [f"{word}:{bit}" for bit in range(64) if rest >> bit & 1]
    return [f"no feature stands for {', '.join(found)}: left out"] if found else []
