"""Firecracker's CPU templates: what a guest sees when Firecracker applies them to a host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from cpus import (
    again,
    assert_golden,
    cpu,
    cpu_text,
    cpu_texts,
    expansion,
    lost_features,
    named,
    read,
    table,
    write,
)
from hypothesis import given, settings

from cpufw.core.features import FeatureSet
from cpufw.errors import CpufwError
from cpufw_x86.cpuid import CpuidLeaf, CpuidTable
from cpufw_x86.words import feature_words

# docs/cpu_templates/schema.json of Firecracker 1.7, in our words: bitmaps are of full width.
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["cpuid_modifiers", "msr_modifiers"],
    "properties": {
        "cpuid_modifiers": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["leaf", "subleaf", "flags", "modifiers"],
                "properties": {
                    "leaf": {"type": "string", "pattern": "^0x[0-9a-f]+$"},
                    "subleaf": {"type": "string", "pattern": "^0x[0-9a-f]+$"},
                    "flags": {"enum": [0, 1]},
                    "modifiers": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["register", "bitmap"],
                            "properties": {
                                "register": {"enum": ["eax", "ebx", "ecx", "edx"]},
                                "bitmap": {"type": "string", "pattern": "^0b[01x]{32}$"},
                            },
                        },
                    },
                },
            },
        },
        "msr_modifiers": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["addr", "bitmap"],
                "properties": {
                    "addr": {"type": "string", "pattern": "^0x[0-9a-f]+$"},
                    "bitmap": {"type": "string", "pattern": "^0b[01x]{64}$"},
                },
            },
        },
    },
}


def applied(bitmap: str, host: int) -> int:
    """What Firecracker makes of the host's register."""
    value = host
    for bit, each in enumerate(reversed(bitmap.removeprefix("0b"))):
        if each != "x":
            value = value & ~(1 << bit) | int(each) << bit
    return value


def on_host(template: Mapping[str, Any], host: CpuidTable) -> CpuidTable:
    """The CPUID of a guest; a template for a leaf that the host lacks is refused."""
    changed = {}
    for entry in template["cpuid_modifiers"]:
        key = (int(entry["leaf"], 16), int(entry["subleaf"], 16))
        registers = list(host[key].registers)
        for each in entry["modifiers"]:
            number = ("eax", "ebx", "ecx", "edx").index(each["register"])
            registers[number] = applied(each["bitmap"], registers[number])
        changed[key] = CpuidLeaf(*key, *registers)
    return host.replaced(changed.values())


def everything(model: str) -> CpuidTable:
    """A host with the leaves of `model` and every bit set that a feature has."""
    alone = cpu(model)
    alone.realize()
    shown: CpuidTable = alone.cpuid  # type: ignore[attr-defined]
    words = feature_words(table()).encode(table().set(each.name for each in table()))
    leaves = {key: list(leaf.registers) for key, leaf in shown.items()}
    for word, mask in words.items():
        if word.startswith("MSR."):
            continue
        function, *index, register = word.split(".")
        key = (int(function, 16), int(index[0]) if index else 0)
        registers = leaves.setdefault(key, [0, 0, 0, 0])
        registers[["EAX", "EBX", "ECX", "EDX"].index(register)] |= mask
    return CpuidTable(CpuidLeaf(*key, *registers) for key, registers in leaves.items())


def in_reach(shown: CpuidTable) -> FeatureSet:
    """The features that a guest with this CPUID finds, looking no further than the limits say."""
    words = {}
    for word, value in shown.words().items():
        function, *index, _ = word.split(".")
        number = int(function, 16)
        subleaf = int(index[0]) if index else 0
        last = shown.lookup(7)[0] if number == 7 else subleaf
        if number <= (shown.limit(number & 0xC0000000) or 0) and subleaf <= last:
            words[word] = value
    found: FeatureSet = feature_words(table()).decode(words)
    return found.without(table().set(found.unmet()))


def beyond_the_limits(text: str) -> FeatureSet:
    alone = cpu(text)
    alone.realize()
    features = alone.requested
    return features - in_reach(alone.cpuid)  # type: ignore[attr-defined]


def cpuid_features(features: FeatureSet) -> FeatureSet:
    paravirtual = table().set(
        each.name for each in table() if each.places[0].startswith(("MSR.", "4000"))
    )
    return features - paravirtual


@pytest.mark.parametrize("host", ["SapphireRapids-v3", "EPYC-Genoa", "Haswell"])
@settings(max_examples=25)
@given(text=cpu_texts())
def test_the_guest_of_a_host_that_has_everything_sees_the_model(host: str, text: str) -> None:
    exported = write("firecracker", text)
    template = json.loads(exported.text)
    jsonschema.validate(template, SCHEMA)
    features = cpuid_features(expansion(text).features) - beyond_the_limits(text)
    shown = everything(host)
    asked = {(int(e["leaf"], 16), int(e["subleaf"], 16)) for e in template["cpuid_modifiers"]}
    if asked <= shown.keys():
        assert cpuid_features(in_reach(on_host(template, shown))) == features


@settings(max_examples=40)
@given(text=cpu_texts())
def test_what_is_written_and_read_is_the_same_cpu(text: str) -> None:
    exported, came = again("firecracker", text)
    assert not (came.features ^ expansion(text).features) - lost_features(exported)
    shown = (cpu(text), cpu(cpu_text(read("firecracker", exported.text))))
    for each in shown:
        each.realize()
    signatures = [each.cpuid.lookup(1)[0] for each in shown]  # type: ignore[attr-defined]
    assert signatures[0] == signatures[1]


def test_every_model_is_found_again() -> None:
    for name in named():
        if name != "base":
            imported = read("firecracker", write("firecracker", name).text)
            assert (imported.request.plus, imported.request.minus) == ((), ()), name
            assert imported.notes == (), name


def test_the_golden_template() -> None:
    assert_golden("Haswell.json", write("firecracker", "Haswell-v4,+vmx,+arch-capabilities").text)


def test_no_leaf_is_touched_that_a_plain_host_lacks() -> None:
    template = json.loads(write("firecracker", "Haswell").text)
    leaves = {int(entry["leaf"], 16) for entry in template["cpuid_modifiers"]}
    assert leaves == {0, 1, 6, 7, 0xD, 0x80000000, 0x80000001, 0x80000007, 0x80000008}
    assert template["msr_modifiers"] == []


def test_leaves_with_subleaves_are_flagged_as_kvm_flags_them() -> None:
    template = json.loads(write("firecracker", "SapphireRapids").text)
    flags = {int(entry["leaf"], 16): entry["flags"] for entry in template["cpuid_modifiers"]}
    assert (flags[1], flags[7], flags[0xD], flags[0x80000001]) == (0, 1, 1, 0)


def test_what_firecracker_overrides_is_lost() -> None:
    lost = write("firecracker", "EPYC-v1,+arch-capabilities,-topoext,-hypervisor").lost
    assert lost[0] == "vendor=AuthenticAMD"
    assert set(lost[-4:]) == {
        "arch-capabilities=on",
        "topoext=off",
        "hypervisor=off",
        "tsc-deadline=off",
    }


def test_values_that_are_in_no_register_of_a_template_are_lost() -> None:
    text = "Haswell,l3-cache=off,tsc-frequency=2000000000,stepping=5,level=20,phys-bits=44,kvm=off"
    exported = write("firecracker", text)
    names = {each.partition("=")[0] for each in exported.lost}
    assert names == {"vendor", "model-id", "l3-cache", "kvm", "tsc-frequency"}
    found = read("firecracker", exported.text).request
    assert found.properties == {"stepping": "5", "level": "20", "phys-bits": "44"}


def test_bits_that_a_template_leaves_to_the_host_stay_the_models() -> None:
    template = {
        "kvm_capabilities": ["!56"],
        "cpuid_modifiers": [
            {
                "leaf": "0x1",
                "subleaf": "0x0",
                "flags": 0,
                "modifiers": [
                    # family 6, model 60, stepping 1: Haswell-v4; no FMA; ECX bit 11 has no feature
                    {"register": "eax", "bitmap": "0bxxxx000000000011xx00011011000001"},
                    {"register": "ecx", "bitmap": "0b0_1xxx_xxxx_xxxx"},
                ],
            }
        ],
    }
    imported = read("firecracker", json.dumps(template))
    assert cpu_text(imported) == "Haswell-v2,-fma"
    assert imported.notes == (
        "kvm_capabilities is not part of a CPU model",
        "no feature stands for 1.ECX:11: left out",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"cpuid_modifiers": [', "line 1, column 22"),
        ('{"cpuid_modifiers": {}}', "cpuid_modifiers is not a list"),
        ('{"cpuid_modifier": []}', "did you mean cpuid_modifiers?"),
        ('{"reg_modifiers": []}', "neither cpuid_modifiers nor msr_modifiers"),
        ('{"cpuid_modifiers": [1]}', "cpuid_modifiers[0] is not an object"),
        ('{"cpuid_modifiers": [{"leaf": "x"}]}', "cpuid_modifiers[0].leaf: 'x'"),
        ('{"cpuid_modifiers": [{"leaf": "0x1", "subleaf": "0x0"}]}', "modifiers is not a list"),
        (
            '{"cpuid_modifiers": [{"leaf": "0x1", "subleaf": "0x0", "modifiers":'
            ' [{"register": "ekx"}]}]}',
            "'ekx' is no register",
        ),
        ('{"msr_modifiers": [{"addr": "0x10a", "bitmap": "0b01y"}]}', "'y' is no bit"),
        ('{"msr_modifiers": [{"addr": "0x10a", "bitmap": "0b' + "x" * 65 + '"}]}', "65 bits"),
        ('{"msr_modifiers": [{"addr": "0x100000000", "bitmap": "0b1"}]}', "of 32 bits"),
        (
            '{"msr_modifiers": [{"addr": "0x1", "bitmap": "0b"}, {"addr": "0x1", "bitmap": "0b"}]}',
            "0x1 is there twice",
        ),
        ("[1]", "this is no CPU template"),
    ],
)
def test_malformed_templates_are_one_sentence(text: str, said: str) -> None:
    with pytest.raises(CpufwError) as error:
        read("firecracker", text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
