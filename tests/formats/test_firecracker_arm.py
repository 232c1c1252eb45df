"""Firecracker's CPU templates for aarch64."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cpus import assert_golden, framework
from cpus import formats as all_formats

from cpufw.errors import CpufwError, ModelError
from cpufw.formats.requests import request_text

pytest.importorskip("cpufw_arm")

ARCH = "aarch64"
PFR0, ISAR0 = 0x603000000013C020, 0x603000000013C030


def codec() -> Any:
    return all_formats().codec("firecracker", ARCH)


def write(text: str) -> Any:
    return codec().write(framework().cpu(text, ARCH), framework())


def read(text: str) -> Any:
    return codec().read(text, framework())


def id_registers(text: str) -> dict[str, int]:
    cpu: Any = framework().cpu(text, ARCH)
    cpu.realize()
    return dict(cpu.id_registers)


def models() -> list[str]:
    return [
        model.name
        for model in framework().catalogue(ARCH)
        if not model.dynamic and "ID_AA64PFR0_EL1" in id_registers(model.name)
    ]


def fields(bitmap: str) -> list[str]:
    """The fields of four bits, the lowest first."""
    digits = bitmap.removeprefix("0b")
    assert len(digits) == 64
    return [digits[place : place + 4] for place in range(60, -4, -4)]


def test_registers_are_named_as_kvm_names_them_and_hold_the_models_fields() -> None:
    template = json.loads(write("cortex-a57").text)
    bitmaps = {int(each["addr"], 16): each["bitmap"] for each in template["reg_modifiers"]}
    # Arm DDI 0488: AES, SHA1, SHA2 and CRC32, and AES has PMULL, too
    assert fields(bitmaps[ISAR0])[:6] == ["xxxx", "0010", "0001", "0001", "0001", "0000"]
    # both states at EL0 and EL1; what is above is KVM's matter; floating point and Advanced SIMD
    assert fields(bitmaps[PFR0])[:7] == ["0010", "0010", "xxxx", "xxxx", "0000", "0000", "xxxx"]


@pytest.mark.parametrize(
    ("text", "capabilities", "bits"),
    [
        ("cortex-a57", [], "0b000xxxx"),
        ("neoverse-v1", ["170", "171", "172"], "0b111xxxx"),
        ("neoverse-v1,sve=off", ["171", "172"], "0b110xxxx"),
    ],
)
def test_what_kvm_must_turn_on(text: str, capabilities: list[str], bits: str) -> None:
    template = json.loads(write(text).text)
    assert template["kvm_capabilities"] == capabilities
    assert template["vcpu_features"] == [{"index": 0, "bitmap": bits}]


def test_every_model_is_found_again_by_its_id_registers() -> None:
    assert len(models()) >= 10
    for name in models():
        imported = read(write(name).text)
        assert imported.notes == (), name
        assert imported.request.minus == (), name
        mine, found = id_registers(name), id_registers(request_text(imported.request))
        for register in ("ID_AA64PFR0_EL1", "ID_AA64ISAR0_EL1", "ID_AA64MMFR1_EL1"):
            assert mine[register] == found[register], name


@pytest.mark.parametrize("text", ["neoverse-v1,-sve", "neoverse-v1,-pauth", "a64fx,-sve"])
def test_a_feature_that_is_off_comes_back_off(text: str) -> None:
    assert request_text(read(write(text).text).request) == text


def test_what_a_template_cannot_say_is_lost() -> None:
    lost = write("cortex-a57,pmu=off").lost
    assert {"MIDR_EL1=0x411fd070", "has_el2=on", "pmu=off"} <= set(lost)
    with pytest.raises(ModelError, match="no ID registers of AArch64"):
        write("cortex-a15")


def test_the_golden_template() -> None:
    assert_golden("neoverse-n1.json", write("neoverse-n1").text)


def test_a_field_that_no_model_has_is_said() -> None:
    template = json.loads(write("cortex-a57").text)
    for each in template["reg_modifiers"]:
        if int(each["addr"], 16) == ISAR0:
            each["bitmap"] = "0b0001" + "x" * 60  # RNDR
    imported = read(json.dumps(template))
    assert imported.request.model in ("cortex-a57", "cortex-a72")
    assert imported.notes == ("ID_AA64ISAR0_EL1.RNDR is 0x1 there and 0x0 here",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"cpuid_modifiers": []}', "neither reg_modifiers nor vcpu_features"),
        ('{"reg_modifiers": [{"addr": "0x1"}]}', "the bitmap is not text"),
        ('{"reg_modifiers": [{"addr": "pc", "bitmap": "0b1"}]}', "'pc' is not a number"),
        ('{"vcpu_features": [{"index": 0, "bitmap": "0b2"}]}', "'2' is no bit"),
    ],
)
def test_malformed_templates_are_one_sentence(text: str, said: str) -> None:
    with pytest.raises(CpufwError) as error:
        read(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
