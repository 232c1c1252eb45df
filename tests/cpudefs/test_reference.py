"""The definitions give what QEMU 10.0.2 answered (tests/data/qemu10)."""

import json
import lzma
import re
from collections.abc import Iterable
from typing import Any

import pytest

from .definitions import DOCUMENTS, FEATURES, ROOT, VERSIONS, Version, places

DATA = ROOT / "tests" / "data" / "qemu10"


def unpack(name: str, key: str) -> dict[str, Any]:
    """One part of a packed document of the reference."""
    packed = (DATA / f"{name}.json.xz").read_bytes()
    part: dict[str, Any] = json.loads(lzma.decompress(packed))[key]
    return part


MODELS = unpack("x86-models", "models")
FLAGS = unpack("x86-flag-bits", "flags")

# 1.EDX bits that 80000001.EDX repeats on AMD (APM vol. 3, E.4); QEMU leaves out bit 1, vme, and
# repeats none of them for Hygon
REPEATED = [0, *range(2, 10), *range(12, 18), 23, 24]
# XSAVE components (Intel SDM vol. 1, 13.1) that the reference can show: TCG, which answered,
# has no AVX-512 and no AMX
COMPONENTS = {"xsave": [0, 1], "avx": [2], "mpx": [3, 4], "pku": [9]}

NAMED = {version.name: version for version in VERSIONS}
NAMED |= {version.alias: version for version in VERSIONS if version.alias}
NAMED |= {family: NAMED[f"{family}-v1"] for family in DOCUMENTS if f"{family}-v1" in NAMED}


def words(features: Iterable[str], vendor: str) -> dict[str, int]:
    """What CPUID and the VMX MSRs hold, word by word, for a model with these features."""
    features = set(features)
    found: dict[str, int] = {}
    for name in features:
        for place in places(FEATURES[name]):
            word, bit = place.rsplit(":", 1)
            found[word] = found.get(word, 0) | 1 << int(bit)
    if vendor == "AuthenticAMD":
        repeated = sum(1 << bit for bit in REPEATED) & found.get("1.EDX", 0)
        found["80000001.EDX"] = found.get("80000001.EDX", 0) | repeated
    if "xsave" in features:
        bits = [bit for name in COMPONENTS if name in features for bit in COMPONENTS[name]]
        found["D.0.EAX"] = sum(1 << bit for bit in bits)
    return found


def numbers(reference: dict[str, str]) -> dict[str, int]:
    return {word: int(value, 16) for word, value in reference.items()}


def test_every_name_of_the_reference_is_defined() -> None:
    assert set(NAMED) | {"base", "max", "host"} == set(MODELS)


def test_base_is_static_and_only_max_and_host_are_dynamic() -> None:
    assert [name for name, d in DOCUMENTS.items() if d.get("static")] == ["base"]
    assert {name for name, d in DOCUMENTS.items() if d.get("dynamic")} == {"max", "host"}
    assert MODELS["base"]["features"] == []


def test_every_property_of_the_reference_is_a_feature_with_its_bits() -> None:
    ours = {}
    for name, feature in FEATURES.items():
        for called in (name, *feature.get("aliases", {}).get("qemu", [])):
            ours[called] = set(places(feature))
    for name, flag in FLAGS.items():
        bits = {f"{word}:{bit}" for word, bit in flag["bits"] if word != "D.0.EAX"}
        assert ours.pop(name, None) == bits, name
    assert set(ours) == {"vmx-ept-wb", "vmx-exit-host-addr-space-size"}  # QEMU has no name for


@pytest.mark.parametrize("name", NAMED)
def test_alias_stands_for_the_version_that_it_stands_for_there(name: str) -> None:
    expected = MODELS[name]["alias-of"] or name
    assert NAMED[name].name == expected


@pytest.mark.parametrize("name", NAMED)
def test_identity(name: str) -> None:
    version, reference = NAMED[name], MODELS[name]["identity-properties"]
    for key in ("vendor", "family", "model", "stepping", "level", "xlevel"):
        assert version.value(key) == reference[key], key
    assert version.value("xlevel2", 0) == reference["xlevel2"]
    assert version.value("avx10-version", 0) == reference["avx10-version"]
    assert version.value("model-id", "") == reference["model-id"]
    wide = 40 if "lm" in version.features else 36 if {"pae", "pse36"} & version.features else 32
    assert version.value("phys-bits", wide) == reference["phys-bits"]
    assert (version.value("caches") is None) == reference["legacy-cache"]


@pytest.mark.parametrize("name", NAMED)
def test_words(name: str) -> None:
    version = NAMED[name]
    ours = words(version.features | {"hypervisor"}, version.value("vendor"))
    assert ours == numbers(MODELS[name]["words"])


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_words_with_vmx_on(version: Version) -> None:
    on = version.features | {"hypervisor", "vmx"} | version.vmx
    reference = numbers(MODELS[version.name]["vmx"]["words"])
    ours = words(on, version.value("vendor"))
    # the reference gives 1.ECX, which holds vmx itself, and the VMX MSRs
    vmx_msr = re.compile(r"MSR\.4[89]")
    assert {word: v for word, v in ours.items() if word == "1.ECX" or vmx_msr.match(word)} == (
        reference
    )


# --- caches ------------------------------------------------------------------------------

# the topology that was measured: threads that share a cache of each level
SHARING = {"thread": 1, "core": 2, "die": 4, "socket": 8}
TYPES = {"data": 1, "instruction": 2, "unified": 3}


def measured_caches() -> dict[str, dict[str, list[int]]]:
    """Model to leaf to [eax, ebx, ecx, edx], from x86-caches.txt."""
    found: dict[str, dict[str, list[int]]] = {}
    model = ""
    for line in (DATA / "x86-caches.txt").read_text().splitlines():
        if line.startswith(" "):
            leaf, *registers = line.split()
            found[model][leaf] = [int(register, 16) for register in registers]
        else:
            model = line
            found[model] = {}
    return found


CACHES = measured_caches()


def deterministic(cache: dict[str, Any], *, amd: bool) -> list[int]:
    """Leaf 4 (Intel SDM) or 8000001DH (AMD APM), without the number of cores in the package."""
    eax = TYPES[cache["type"]] | cache["level"] << 5 | cache["self-init"] << 8
    eax |= SHARING[cache["share-level"]] - 1 << 14
    ebx = cache["line-size"] - 1 | cache["partitions"] - 1 << 12 | cache["associativity"] - 1 << 22
    edx = cache["no-invd-sharing"] | cache["inclusive"] << 1
    return [eax, ebx, cache["sets"] - 1, edx if amd else edx | cache["complex-indexing"] << 2]


@pytest.mark.parametrize("name", CACHES)
def test_caches_encode_to_what_was_measured(name: str) -> None:
    caches, measured = NAMED[name].value("caches"), CACHES[name]
    for index, cache in enumerate(caches):
        eax, *rest = measured[f"4.{index}"]
        assert [eax & 0x03FFFFFF, *rest] == deterministic(cache, amd=False)
        assert measured[f"8000001d.{index}"] == deterministic(cache, amd=True)
    assert measured[f"4.{len(caches)}"] == [0, 0, 0, 0]
    data, code, second, third = caches
    for cache, word in ((data, measured["80000005"][2]), (code, measured["80000005"][3])):
        kib, lines_per_tag, line = word >> 24, word >> 8 & 0xFF, word & 0xFF
        assert (kib << 10, lines_per_tag, line) == (
            cache["size"],
            cache["lines-per-tag"],
            cache["line-size"],
        )
    assert measured["80000006"][2] >> 16 << 10 == second["size"]
    assert measured["80000006"][3] >> 18 << 19 == third["size"]
    assert [word >> 8 & 0xF for word in measured["80000006"][2:]] == [
        second["lines-per-tag"],
        third["lines-per-tag"],
    ]


def test_every_version_with_caches_of_its_own_was_measured() -> None:
    assert {v.name for v in VERSIONS if v.value("caches")} == set(CACHES)
