"""x86 hosts as other programs wrote them down: `cpuid -r`, Firecracker, libvirt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cpufw.core.capture import HostCapture, LibvirtHost, word_of
from cpufw.core.features import FeatureTable
from cpufw.errors import DefinitionError
from cpufw_x86.accelerator import identity_of_table
from cpufw_x86.cpuid import REGISTER_NAMES, CpuidLeaf, CpuidTable
from cpufw_x86.feature_msrs import feature_words_of
from cpufw_x86.formats.libvirt import libvirt_names
from cpufw_x86.identity import INTEL
from cpufw_x86.words import feature_words

CPUID, HOST_CPUID = "cpuid", "host-cpuid"
"""Keys of `HostCapture.raw`: the CPUID that guests can be given, and what the CPU itself says."""

# What KVM gives on any host, by its own local APIC and timer.
_GIVEN_BY_KVM = ("hypervisor", "x2apic", "arat", "tsc-deadline")

# What KVM itself offers guests: Linux Documentation/virt/kvm/x86/cpuid.rst.
_PARAVIRTUAL_WORDS = ("40000001.EAX", "40000001.EDX")

# Where CPUID tells the CPU that answers from its neighbours: register (0 = EAX) and mask.
_APIC_ID_FIELDS = {
    0x1: (1, 0xFF000000),
    0xB: (3, 0xFFFFFFFF),
    0x1F: (3, 0xFFFFFFFF),
    0x8000001E: (0, 0xFFFFFFFF),
    0x80000026: (3, 0xFFFFFFFF),
}

# The first lines of a dump: a heading, then leaf 0.
_CPUID_RAW = re.compile(r"\s*(CPU( \d+)?:\s*\n)?\s*0x[0-9a-fA-F]{1,8} 0x[0-9a-fA-F]{1,8}:")
_ANOTHER_CPU = re.compile(r"^\s*CPU \d+:", re.MULTILINE)
_BITMAP = re.compile(r"0b[01_]+")


def read_cpuid_raw(name: str, text: str, table: FeatureTable) -> HostCapture | None:
    """The first CPU of the output of `cpuid -r`; None for any other text.

    Raises `DefinitionError` for a line of another form and for a dump that is cut off.
    """
    if not _CPUID_RAW.match(text):
        return None
    heads = [found.start() for found in _ANOTHER_CPU.finditer(text)]
    cpuid = CpuidTable.from_raw(text[: heads[1]] if len(heads) > 1 else text)
    functions = {function for function, _ in cpuid}
    for base in (0x0, 0x80000000):
        limit = cpuid.limit(base) or 0
        if limit > base and limit not in functions:
            raise DefinitionError(
                [f"leaf {limit:#x} is missing, the last that leaf {base:#x} names: it is cut off"]
            )
    # Its hypervisor leaves, if any, are about the host as a guest: nothing it could hand on.
    own = CpuidTable(leaf for leaf in cpuid.values() if leaf.function >> 28 != 0x4)
    return captured(name, "cpuid -r", table, own, {}, {}, HOST_CPUID)


def read_firecracker(
    name: str, document: Mapping[str, Any], table: FeatureTable
) -> HostCapture | None:
    """A Firecracker fingerprint, or a CPU template that was dumped; None for any other object.

    Raises `DefinitionError` for a template that leaves bits as they are on the host, and for what
    is malformed.
    """
    config = document.get("guest_cpu_config", document)
    if not isinstance(config, dict) or "cpuid_modifiers" not in config:
        return None
    problem = ""
    try:
        cpuid = CpuidTable(map(_modified_leaf, config["cpuid_modifiers"]))
        msrs = {
            _number(entry["addr"]): _bits(entry["bitmap"], f"MSR {entry['addr']}")
            for entry in config.get("msr_modifiers", ())
        }
    except (TypeError, AttributeError):
        problem = "expected lists of objects in cpuid_modifiers and msr_modifiers"
    except KeyError as error:
        problem = f"a modifier has no {error}"
    except ValueError as error:
        problem = str(error)
    if not problem and (0, 0) not in cpuid:
        problem = "CPUID leaf 0 is missing"
    if problem:
        raise DefinitionError([f"Firecracker CPU configuration: {problem}"])
    system = {
        "kernel": str(document.get("kernel_version", "")),
        "microcode": str(document.get("microcode_version", "")),
        "firecracker": str(document.get("firecracker_version", "")),
    }
    source = "Firecracker fingerprint" if config is not document else "Firecracker CPU template"
    return captured(name, source, table, cpuid, msrs, system)


def read_libvirt(host: LibvirtHost, table: FeatureTable) -> HostCapture:
    """A host that libvirt describes.

    Where it names a model that is not in libvirt's map, only what it lists beside it is known.
    """
    names = libvirt_names(table)
    vendors = {theirs: vendor for vendor, theirs in names.map.vendors.items()}
    identity = {"vendor": vendors.get(host.vendor, ""), **host.signature}
    if host.phys_bits is not None:
        identity["phys-bits"] = host.phys_bits
    of_model = names.model(host.model)
    had = {name for name in of_model or () if host.disabled.isdisjoint(names.of(name))}
    listed = {names.feature(each) or each for each in host.features}
    words = dict.fromkeys(map(word_of, table))
    return HostCapture(
        name=host.name,
        arch=table.arch,
        source=host.source,
        features=_in_order(table, had | listed | set(_GIVEN_BY_KVM)),
        identity={key: value for key, value in identity.items() if value != ""},
        unknown=tuple(
            word for word in words if of_model is None or word.startswith(_PARAVIRTUAL_WORDS)
        ),
        tsc=host.tsc,
        system={
            key: value
            for key, value in (("microcode", host.microcode), ("libvirt", host.model))
            if value
        },
    )


def _in_order(table: FeatureTable, names: set[str]) -> tuple[str, ...]:
    """`names` in table order, then those that the table does not have."""
    known = table.set(names & {feature.name for feature in table})
    return (*known, *sorted(names.difference(known)))


def _modified_leaf(entry: Mapping[str, Any]) -> CpuidLeaf:
    function, index = _number(entry["leaf"]), _number(entry["subleaf"])
    registers = dict.fromkeys(REGISTER_NAMES, 0)
    for each in entry["modifiers"]:
        register = each["register"].upper()
        if register not in registers:
            raise ValueError(f"'{each['register']}' is not a register, expected eax to edx")
        registers[register] = _bits(each["bitmap"], f"leaf {function:#x}.{index} {register}")
    return CpuidLeaf(function, index, *registers.values())


def _number(text: Any) -> int:
    try:
        return int(text, 0)
    except (TypeError, ValueError):
        raise ValueError(f"'{text}' is not a number like 0x1") from None


def _bits(text: Any, what: str) -> int:
    if isinstance(text, str) and "x" in text[2:]:
        raise ValueError(
            f"{what} leaves bits to the host (x): a template says what to change, not what a host "
            "has; dump one with cpu-template-helper"
        )
    if not isinstance(text, str) or not _BITMAP.fullmatch(text):
        raise ValueError(f"{what}: '{text}' is not a bitmap like 0b0101")
    return int(text, 2)


def captured(
    name: str,
    source: str,
    table: FeatureTable,
    cpuid: CpuidTable,
    msrs: Mapping[int, int],
    system: Mapping[str, str],
    kind: str = CPUID,
) -> HostCapture:
    """A host of which another program wrote down the CPUID, and perhaps some MSRs.

    `kind` is what CPUID it is: a key of `HostCapture.raw`. What it cannot tell is `unknown`: the
    other MSRs, and what KVM offers its guests where leaves 0x40000000 are missing.
    """
    known = {f"MSR.{index:X}" for index in msrs}
    if (0x40000001, 0) in cpuid:
        known.update(_PARAVIRTUAL_WORDS)
    silent = [
        word
        for word in dict.fromkeys(map(word_of, table))
        if word.startswith(("MSR.", *_PARAVIRTUAL_WORDS)) and word not in known
    ]
    features = feature_words(table).decode({**cpuid.words(), **feature_words_of(msrs)})
    identity = identity_of_table(cpuid)
    if identity["vendor"] == INTEL and "lm" in features:
        features |= table.set(["syscall"])  # 32-bit programs do not see it: Intel SDM vol. 2A
    return HostCapture(
        name=name,
        arch=table.arch,
        source=source,
        features=tuple(features | table.set(_GIVEN_BY_KVM)),
        identity=identity,
        unknown=tuple(silent),
        msrs=dict(msrs),
        raw={kind: without_apic_ids(cpuid).to_raw()},
        system={key: value for key, value in system.items() if value},
    )


def without_apic_ids(table: CpuidTable) -> CpuidTable:
    """`table` without what depends on which of the host's CPUs answered."""
    leaves = []
    for leaf in table.values():
        register, mask = _APIC_ID_FIELDS.get(leaf.function, (0, 0))
        values = list(leaf.registers)
        values[register] &= ~mask
        leaves.append(CpuidLeaf(leaf.function, leaf.index, *values))
    return CpuidTable(leaves)
