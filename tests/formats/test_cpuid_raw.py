"""The dump of `cpuid -r`, out and in, held against what QEMU's guests read."""

from __future__ import annotations

import pytest
from cpus import (
    again,
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
from cpufw.errors import CpufwError, ModelError
from cpufw_x86.cpuid import CpuidTable


def in_cpuid(features: FeatureSet) -> FeatureSet:
    hidden = table().set(each.name for each in table() if each.places[0].startswith("MSR."))
    return features - hidden


def leaves(text: str) -> CpuidTable:
    alone = cpu(text)
    alone.realize()
    found: CpuidTable = alone.cpuid  # type: ignore[attr-defined]
    return found


def test_a_dump_is_what_the_guest_reads() -> None:
    for text in ("Haswell,+vmx", "EPYC-Milan-v2", "486"):
        assert CpuidTable.from_raw(write("cpuid-raw", text).text).words() == leaves(text).words()


def test_every_model_is_found_again() -> None:
    for name in named():
        if name == "base":
            continue
        imported = read("cpuid-raw", write("cpuid-raw", name).text)
        assert leaves(cpu_text(imported)) == leaves(name), name
        assert imported.notes == (), name
        assert (imported.request.plus, imported.request.minus) == ((), ()), name


@settings(max_examples=40)
@given(text=cpu_texts())
def test_what_is_written_and_read_shows_the_same_features(text: str) -> None:
    exported, came = again("cpuid-raw", text)
    wanted = expansion(text).features
    lost = lost_features(exported)
    assert not in_cpuid(came.features ^ wanted) - lost
    assert lost >= wanted - in_cpuid(wanted)


def test_what_differs_from_the_model_is_said() -> None:
    text = "Haswell-v4,-avx2,+invtsc,stepping=9,model-id=Mine,phys-bits=44,level=13"
    imported = read("cpuid-raw", write("cpuid-raw", text).text)
    assert leaves(cpu_text(imported)) == leaves(text)
    assert imported.request.model == "Haswell-v4"
    assert imported.request.properties == {"stepping": "9", "model-id": "Mine", "phys-bits": "44"}
    assert (imported.request.plus, imported.request.minus) == (("invtsc",), ("avx2",))


def test_a_real_dump_gives_its_model_and_tells_what_is_not_expressed() -> None:
    # Two CPUs of a Penryn with a cache and a topology of their own.
    dump = write("cpuid-raw", "Penryn,model-id=Intel(R) Core(TM)2 Duo").text.splitlines()
    changed = [
        line.replace("0x00000004 0x00: eax=0x0", "0x00000004 0x00: eax=0x1") for line in dump
    ]
    second = ["CPU 1:", *changed[1:]]
    imported = read("cpuid-raw", "\n".join(["CPU 0:", *changed[1:], *second]))
    assert cpu_text(imported) == "Penryn-v1,model-id=Intel(R) Core(TM)2 Duo"
    assert imported.notes == ("what CPUID says in leaves 0x4.0x0 is not all expressed",)


def test_a_value_that_no_request_can_hold_is_said() -> None:
    text = write("cpuid-raw", "Penryn").text.replace("eax=0x65746e49", "eax=0x2c746e49")  # "Int,"
    imported = read("cpuid-raw", text)
    assert "model-id" not in imported.request.properties
    assert any("has a comma" in note for note in imported.notes)


def test_a_model_that_the_accelerator_fills_in_has_no_dump() -> None:
    with pytest.raises(ModelError, match="needs an accelerator"):
        write("cpuid-raw", "host")


def test_what_cpuid_does_not_show_is_lost() -> None:
    assert write("cpuid-raw", "pentium,phys-bits=44").lost == ("phys-bits=44",)
    lost = write("cpuid-raw", "Haswell,tsc-frequency=2000000000,l3-cache=off,stepping=5").lost
    assert [each.partition("=")[0] for each in lost] == ["tsc-frequency"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0x00000000 0x00: eax=0x1 ebx=0x1 ecx=0x1 edx=0x1\n" + "x\n" * 100_000, "so many leaves"),
        ("CPU:\n   0x00000001 0x00: eax=0x1 ebx=0x1 ecx=0x1 edx=0x1\n", "leaf 0 is missing"),
        ("CPU:\nrubbish\n", "line 2: 'rubbish'"),
        ("", "leaf 0 is missing"),
        ("a\nb\nc\n", "(and 2 more)"),
    ],
)
def test_bad_dumps_are_one_sentence(text: str, said: str) -> None:
    with pytest.raises(CpufwError) as error:
        read("cpuid-raw", text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
