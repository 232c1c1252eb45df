"""Vector lengths and pointer authentication: what follows from properties, as QEMU answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu_arm_reference import cpu_class, load

from cpufw.errors import CpufwError, ModelError
from cpufw_arm.vectors import sve_lengths

MEASURED = load("arm-measured.json")
ALL = frozenset(range(128, 2049, 128))


def on(model: str, properties: dict[str, Any]) -> set[str] | str:
    """The features of `model` with these properties, or what is wrong with them."""
    try:
        return set(cpu_class(model, "aarch64")(**properties).expand().features)
    except CpufwError as error:
        return str(error)


def lengths_of(cpu: str, kind: str) -> set[str] | None:
    """The vector lengths of a `--cpu` string, None if there is no such CPU."""
    model, *parts = cpu.split(",")
    features = on(model, dict(part.split("=") for part in parts))
    if isinstance(features, str):
        return None
    return {name for name in features if name.startswith(kind) and name[3:].isdigit()}


def test_expansions_are_those_of_qemu() -> None:
    """Every answer of query-cpu-model-expansion, those that are errors included."""
    compared = {True: 0, False: 0}
    for case in MEASURED["expansions"]:
        where = json.dumps([case["model"], case["props"]])
        ours = on(case["model"], case["props"])
        compared["error" in case] += 1
        if "error" in case:
            assert isinstance(ours, str), where
        else:
            assert not isinstance(ours, str), f"{where}: {ours}"
            for name, value in case["result"].items():
                assert (name in ours) == value, f"{where}: {name}"
    assert compared[True] > 70
    assert compared[False] > 80


def test_lengths_with_sve_max_vq_are_those_of_qemu() -> None:
    for text, answer in MEASURED["sve-max-vq"].items():
        assert lengths_of(text, "sve") == (None if isinstance(answer, str) else set(answer)), text


def test_sme_lengths_are_those_of_qemu() -> None:
    for text, answer in MEASURED["sme"].items():
        assert lengths_of(text, "sme") == (None if isinstance(answer, str) else set(answer)), text


@given(
    st.sets(st.sampled_from(sorted(ALL)), max_size=5),
    st.sets(st.sampled_from(sorted(ALL)), max_size=5),
    st.none() | st.sampled_from(sorted(ALL)),
)
def test_lengths_are_what_hardware_can_have(on: set[int], off: set[int], limit: int | None) -> None:
    off -= on
    try:
        lengths = sve_lengths("max", ALL, on, off, limit)
    except ModelError:
        return
    assert lengths
    assert on <= lengths <= ALL - off
    assert limit is None or max(lengths) == limit
    powers = {128 << shift for shift in range(5)}
    assert {length for length in powers if length <= max(lengths)} <= lengths


@pytest.mark.parametrize(
    ("cpu", "sentence"),
    [
        (
            {"sve512": "on", "sve256": "off"},
            "max: sve256=off contradicts vectors of 512 bits, which need every power of two below; "
            "drop it or turn off sve512 as well",
        ),
        (
            {"sve128": "off"},
            "max: sve128=off leaves SVE without any vector length; "
            "turn SVE itself off with sve=off",
        ),
        (
            {"sve-max-vq": "4", "sve1024": "on"},
            "max: sve1024=on is longer than sve-max-vq=4 allows (512 bits); drop one of them",
        ),
        (
            {"sve-max-vq": "3", "sve384": "off"},
            "max: sve384=off takes away the length that sve-max-vq=3 asks for; drop one of them",
        ),
        (
            {"sve-max-vq": "17"},
            "max-arm-cpu.sve-max-vq=17 is out of range, expected 1 to 16",
        ),
        (
            {"sve": "off", "sve128": "on"},
            "max: +sve128 requires sve, which was turned off; add +sve or drop +sve128",
        ),
        (
            {"sve": "off", "sve-max-vq": "4"},
            "max: sve-max-vq=4 needs sve, which was turned off",
        ),
        (
            {f"sme{length}": "off" for length in (128, 256, 512, 1024, 2048)},
            "max: every sme length is off, which leaves SME without any; "
            "turn SME itself off with sme=off",
        ),
        (
            {"pauth-impdef": "on", "pauth-qarma3": "on"},
            "max: pauth-impdef and pauth-qarma3 exclude one another, a CPU signs pointers by one "
            "algorithm; keep one",
        ),
        (
            {"pauth": "off", "pauth-qarma5": "on"},
            "max: +pauth-qarma5 requires pauth, which was turned off; "
            "add +pauth or drop +pauth-qarma5",
        ),
    ],
)
def test_contradictions_are_one_clear_sentence(cpu: dict[str, str], sentence: str) -> None:
    assert on("max", cpu) == sentence


@pytest.mark.parametrize(
    ("model", "cpu", "sentence"),
    [
        (
            "a64fx",
            {"sve1024": "on"},
            "a64fx has no vectors of 1024 bits (sve1024); it has 128, 256, 512",
        ),
        (
            "neoverse-v1",
            {"sve-max-vq": "4"},
            "neoverse-v1: sve-max-vq=4 asks for vectors of 512 bits, which this model does not "
            "have; its longest are 2 (256)",
        ),
        (
            "cortex-a57",
            {"sve": "on"},
            "cortex-a57 has no sve (ID_AA64PFR0_EL1.SVE), so it cannot be turned on",
        ),
        (
            "cortex-a57",
            {"sve-max-vq": "4"},
            "cortex-a57: sve-max-vq=4 needs sve, which this model does not have",
        ),
        (
            "cortex-a57",
            {"aarch64": "off"},
            "cortex-a57: aarch64=off needs KVM on a host with 32-bit EL1, and there is none; "
            "choose a 32-bit model such as cortex-a15",
        ),
        (
            "neoverse-n1",
            {"aarch64": "off"},
            "neoverse-n1: aarch64=off is impossible, its EL1 has no 32-bit state",
        ),
        (
            "cortex-a57",
            {"neon": "off"},
            "cortex-a57: neon cannot be turned off, a 64-bit Arm CPU always has floating point and "
            "Advanced SIMD",
        ),
        (
            "cortex-a15",
            {"neon": "off"},
            "cortex-a15: neon=off goes only together with vfp-d32=off, Advanced SIMD uses "
            "32 registers; turn off both",
        ),
        (
            "cortex-r52",
            {"neon": "off"},
            "cortex-r52: neon=off goes only together with vfp-d32=off, Advanced SIMD uses "
            "32 registers; this model cannot lose neon",
        ),
        (
            "cortex-a57",
            {"sev": "on"},
            "property of cortex-a57-arm-cpu 'sev' is not known; did you mean sve or sme?",
        ),
    ],
)
def test_what_a_model_cannot_be_is_one_clear_sentence(
    model: str, cpu: dict[str, str], sentence: str
) -> None:
    assert on(model, cpu) == sentence


@pytest.mark.parametrize(
    "settings",
    [
        {"sve384": True},
        {"sve1024": True, "sve384": False},
        {"sve256": False},
        {"sme256": True},
        {"sve": False},
        {"pauth-qarma5": True},
        {"lpa2": False, "pmu": False},
    ],
)
def test_an_expansion_expands_to_itself(settings: dict[str, Any]) -> None:
    """Setting each feature to what came out gives the same CPU."""
    once = on("max", settings)
    assert not isinstance(once, str)
    table = cpu_class("max", "aarch64").model.table
    default = cpu_class("max", "aarch64").model.features
    every = {f.name: f.name in once for f in table if (f.name in once) != (f.name in default)}
    assert on("max", every) == once
