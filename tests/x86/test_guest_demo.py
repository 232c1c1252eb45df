"""`cpufw demo` on kvm: what its guest prints, what is said of the CPU it was given."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from guest_programs import cpufw, demo

from cpufw.core.features import FeatureSet
from cpufw.framework import Framework
from cpufw_x86.accelerator import DEFAULT_OFF
from cpufw_x86.words import feature_words

pytestmark = pytest.mark.kvm

# What follows from the rest of a CPU that shares its package with another one. Intel SDM vol. 2A,
# CPUID leaf 1 (HTT); APM vol. 3, E.4.2 (CmpLegacy, and the copies of leaf 1's EDX on AMD).
HTT, CMP_LEGACY = 1 << 28, 1 << 1
COPIED_ON_AMD = 0x0183_F3FD  # not vme: no AMD CPU of QEMU 10.0 shows its copy


def expected_words(features: FeatureSet, vendor: str, names: Iterable[str]) -> dict[str, str]:
    """What the guest must print for a CPU with these features."""
    words = dict.fromkeys(names, 0) | feature_words(features.table).encode(features)
    words["1.EDX"] |= HTT
    if vendor == "AuthenticAMD":
        words["80000001.ECX"] |= CMP_LEGACY
        words["80000001.EDX"] |= words["1.EDX"] & COPIED_ON_AMD
    return {name: f"{words[name]:08x}" for name in names}


def printed_words(console: list[str], cpu: int) -> dict[str, str]:
    """`{"1.ECX": "f7fa3203", …}` as CPU `cpu` printed them."""
    pattern = re.compile(rf"cpu {cpu}: word (\S+) ([0-9a-f]{{8}})$")
    found = [match.groups() for line in console if (match := pattern.match(line))]
    assert len(dict(found)) == len(found), "a word was printed twice"
    return dict(found)


def test_it_boots_plugs_unplugs_and_powers_off() -> None:
    done = cpufw("demo")
    assert done.returncode == 0, done.stderr
    lines = [line.split("] ", 1)[-1] for line in done.stdout.splitlines()]
    story = [
        "Haswell-x86_64-cpu on kvm",
        "cpu 0: online",
        "device_add Haswell-x86_64-cpu,id=cpu1,socket-id=0,die-id=0,module-id=0,core-id=1,"
        "thread-id=0",
        "slot 1 present",
        "cpu 1: online",
        "device_del cpu1",
        "slot 1 unplug-requested",
        "slot 1 ejecting",
        "slot 1 unplugged",
        "the guest powered off",
    ]
    positions = [lines.index(line) for line in story]
    assert positions == sorted(positions)
    assert "cpu 0: vendor GenuineIntel" in lines


def test_json_tells_the_same_story() -> None:
    told = demo("--smp", "2,maxcpus=4,sockets=2,cores=2,threads=1", "--cycles", "3")
    assert told["outcome"] == "power-off"
    assert [told["console"].count(f"cpu {cpu}: online") for cpu in range(4)] == [1, 1, 3, 0]
    kinds = [event.split(" ", 2)[2] for event in told["events"] if event.startswith("slot 2 ")]
    assert [kinds.count(kind) for kind in ("present", "online", "unplugged")] == [3, 3, 3]
    assert set(told["granted"]) | set(told["unavailable"]) == set(told["requested"])
    assert not set(told["granted"]) & set(told["unavailable"])


def test_64_cpus_with_sparse_apic_ids() -> None:
    told = demo("--smp", "63,maxcpus=66,sockets=22,cores=3,threads=1")
    # Three cores take two bits of the APIC id: Intel SDM vol. 3A 9.9.1.
    apic_ids = [(index // 3) << 2 | index % 3 for index in range(63 + 1)]
    assert all(f"cpu {apic_id}: online" in told["console"] for apic_id in apic_ids)


def test_without_a_free_slot_it_says_that_nothing_can_be_plugged() -> None:
    done = cpufw("demo", "--smp", "2")
    assert done.returncode == 0
    assert "no free slot" in done.stdout
    assert "device_add" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--machine", "none"], 2, "no demonstration guest"),
        (["--cycles", "-1"], 2, "--cycles"),
        (["--cycles", "x"], 2, "--cycles"),
        (["--cpu", "Haswel"], 1, "did you mean Haswell"),
        (["--smp", "2,maxcpus=1"], 2, "maxcpus"),
    ],
)
def test_bad_requests(arguments: list[str], status: int, words: str) -> None:
    done = cpufw("demo", *arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.ordinary_kvm
@pytest.mark.parametrize("cpu", ["Haswell", "EPYC-v1"])
@pytest.mark.parametrize("force", [True, False], ids=["forced", "by default"])
def test_every_word_is_that_of_the_model(cpu: str, force: bool, framework: Framework) -> None:
    """Forced, the guest sees all that the model asks for; else it lacks just what we report."""
    told = demo("--cpu", f"{cpu},x-force-features=on" if force else cpu)
    model = framework.find_model(cpu).model
    shown = model.table.set(told["requested"])
    assert model.features.without(model.table.set(DEFAULT_OFF)) <= shown
    if not force:
        unavailable = model.table.set(told["unavailable"])
        assert unavailable <= shown
        shown -= unavailable
    for index in (0, 1):
        words = printed_words(told["console"], index)
        assert {"1.ECX", "1.EDX", "7.0.EBX", "80000001.EDX"} <= words.keys()
        assert words == expected_words(shown, model.identity["vendor"], words)
