"""The synthesised leaves against what QEMU 10.0.2 answers, for every captured model."""

from __future__ import annotations

import pytest
from qemu_reference import (
    MEASURED_CACHES_TOPOLOGY,
    identity_of,
    load,
    measured_caches,
    model_caches,
    models,
    numbers,
    registers,
    topology,
    words_of,
)

from cpufw_x86.apicid import ApicIdLayout
from cpufw_x86.caches import CacheSet, deterministic_registers, extended_registers
from cpufw_x86.cpuid import Registers
from cpufw_x86.cpuid_words import derived_words, minimum_levels
from cpufw_x86.synthesis import synthesise

ONE_CPU = topology()
SYSCALL = 1 << 11
AVX512_COMPONENTS = 1 << 5 | 1 << 6 | 1 << 7
AMX_COMPONENTS = 1 << 17 | 1 << 18

# TCG has neither AVX-512 nor AMX, so the reference's leaf 0xD lacks their components. Offsets and
# sizes from Intel SDM vol. 1, 13.5.6 (AVX-512) and 13.5.11 (AMX).
AVX512_SUBLEAVES = {5: (64, 1088, 0, 0), 6: (512, 1152, 0, 0), 7: (1024, 1664, 0, 0)}
AMX_SUBLEAVES = {17: (64, 2752, 0b010, 0), 18: (8192, 2816, 0b110, 0)}


def with_avx512_and_amx(leaves: dict[str, Registers], words: dict[str, int]) -> None:
    """Put the components that the reference lacks into its leaf 0xD."""
    if not words.get("7.0.EBX", 0) >> 16 & 1:
        return
    added = dict(AVX512_SUBLEAVES)
    eax, ebx, standard, edx = leaves["0000000d.0"]
    eax |= AVX512_COMPONENTS
    optional, compacted, *xss = leaves["0000000d.1"]
    compacted += 64 + 512 + 1024
    standard = max(standard, 1664 + 1024)
    if words.get("7.0.EDX", 0) >> 24 & 1:
        added |= AMX_SUBLEAVES
        eax |= AMX_COMPONENTS
        standard = 2816 + 8192
        compacted = -(-compacted // 64) * 64 + 64 + 8192
    leaves["0000000d.0"] = eax, ebx, standard, edx
    leaves["0000000d.1"] = optional, compacted, xss[0], xss[1]
    for index, answer in added.items():
        leaves[f"0000000d.{index}"] = answer


def expected_leaves(name: str) -> dict[str, Registers]:
    """The reference's answers to every leaf that was asked for, corrected as explained."""
    captured = load("x86-leaves")
    record = captured["models"][name]
    leaves = {leaf: registers(record["leaves"].get(leaf, ["0"] * 4)) for leaf in captured["asked"]}
    words = numbers(record["words"])
    with_avx512_and_amx(leaves, words)
    facts = models()[name]["identity-properties"]
    if facts["vendor"] == "GenuineIntel" and facts["xlevel"]:
        # The capture ran in real mode; Intel CPUs show SYSCALL in 64-bit mode only.
        eax, ebx, ecx, edx = leaves["80000001.0"]
        leaves["80000001.0"] = eax, ebx, ecx, edx | words.get("80000001.EDX", 0) & SYSCALL
    if facts["level"] == 0xD:  # then leaves out of range repeat the corrected leaf 0xD
        for leaf in leaves:
            function, index = leaf.split(".")
            if is_out_of_range(int(function, 16), facts):
                leaves[leaf] = leaves["0000000d." + index]
    return leaves


def is_out_of_range(function: int, facts: dict[str, int]) -> bool:
    limits = (facts["level"], 0x40000001, facts["xlevel"], facts["xlevel2"])
    return function > limits[function >> 30]


@pytest.mark.parametrize("name", sorted(load("x86-leaves")["models"]))
def test_model_answers_every_leaf_as_the_reference(name: str) -> None:
    words = numbers(load("x86-leaves")["models"][name]["words"])
    table = synthesise(identity_of(name, words), ONE_CPU, ONE_CPU.slot(0))

    different = {}
    for leaf, expected in expected_leaves(name).items():
        function, index = leaf.split(".")
        answer = table.lookup(int(function, 16), int(index))
        if not function.startswith("400000") and answer != expected:  # ours are KVM's, not TCG's
            different[leaf] = (answer, expected)
    assert different == {}


@pytest.mark.parametrize("name", sorted(load("x86-models")["models"]))
def test_words_follow_from_the_features_as_in_the_reference(name: str) -> None:
    record = load("x86-models")["models"][name]
    vendor = (record["identity-properties"] or {"vendor": "AuthenticAMD"})["vendor"]
    expected = words_of(name)
    lacking = 0
    if expected.get("7.0.EBX", 0) >> 16 & 1:
        lacking |= AVX512_COMPONENTS
    if expected.get("7.0.EDX", 0) >> 24 & 1:
        lacking |= AMX_COMPONENTS
    if lacking:
        expected["D.0.EAX"] |= lacking
    features = {key: value for key, value in expected.items() if not key.startswith("D.0.")}
    if vendor == "AuthenticAMD" and name != "host":  # the host's VME there is its own
        features["80000001.EDX"] &= ~0x0183F3FD

    assert derived_words(vendor, features) == expected


@pytest.mark.parametrize("name", sorted(models()))
def test_no_model_needs_higher_levels_than_it_has(name: str) -> None:
    facts = models()[name]["identity-properties"]
    needed = minimum_levels(facts["vendor"], words_of(name))

    assert needed.level <= facts["level"]
    assert needed.level_func7 <= facts["level-func7"]
    assert needed.xlevel <= facts["xlevel"]
    assert needed.xlevel2 <= facts["xlevel2"]


@pytest.mark.parametrize("flag", sorted(load("x86-leaves")["min-levels"]))
def test_feature_raises_the_levels_as_in_the_reference(flag: str) -> None:
    expected = load("x86-leaves")["min-levels"][flag]
    words: dict[str, int] = {}
    for word, bit in load("x86-flag-bits")["flags"][flag]["bits"]:
        words[word] = words.get(word, 0) | 1 << bit

    needed = minimum_levels("GenuineIntel", words)

    assert {
        "level": needed.level,
        "level-func7": needed.level_func7,
        "xlevel": needed.xlevel,
        "xlevel2": needed.xlevel2,
    } == {"level": 0, "level-func7": 0, "xlevel": 0, "xlevel2": 0, **expected}


@pytest.mark.parametrize("name", sorted(measured_caches()))
def test_caches_agree_in_every_leaf_that_describes_them(name: str) -> None:
    measured = measured_caches()[name]
    caches = model_caches(name)  # read from leaf 4; the other leaves must follow
    layout = ApicIdLayout.of(MEASURED_CACHES_TOPOLOGY)
    slot = layout.topology.slot(0)
    identity = identity_of(name, {"80000001.ECX": 1 << 22}, caches=caches)
    table = synthesise(identity, layout.topology, slot)

    for index, cache in enumerate(caches):
        assert deterministic_registers(cache, layout) == measured[f"4.{index}"]
        assert extended_registers(cache, layout) == measured[f"8000001d.{index}"]
    assert table.lookup(0x80000005) == measured["80000005"]
    assert table.lookup(0x80000006) == measured["80000006"]


def test_legacy_caches_are_three_different_sets() -> None:
    legacy = CacheSet.of(None)
    second = [
        next(c for c in view if c.level == 2)
        for view in (legacy.descriptors, legacy.deterministic, legacy.extended)
    ]

    assert [cache.size >> 10 for cache in second] == [2048, 4096, 512]
