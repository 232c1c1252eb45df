"""Hyper-V's enlightenments: the leaves that say what there is, what is refused, and a guest."""

from __future__ import annotations

import re

import pytest
from facility_guests import run_guest
from guest_compiler import checks_of, image_of

from cpufw.errors import ModelError, PropertyError
from cpufw.framework import Framework
from cpufw_x86.cpu import X86CPU
from cpufw_x86.cpuid import CpuidTable
from cpufw_x86.hyperv import ENLIGHTENMENTS
from cpufw_x86.kvm import X86KVM
from cpufw_x86.properties import PROPERTIES
from cpufw_x86.state.msrs import MsrList
from cpufw_x86.state.vcpu import VcpuState

USUAL = "hv-relaxed,hv-vapic,hv-time,hv-vpindex,hv-synic,hv-stimer,hv-stimer-direct"
MORE = "hv-frequencies,hv-runtime,hv-reset,hv-crash,hv-spinlocks=0x1fff"


def cpuid(framework: Framework, settings: str) -> CpuidTable:
    cpu = framework.cpu(f"Haswell,{settings}")
    cpu.realize()
    assert isinstance(cpu, X86CPU)
    return cpu.cpuid


def has_hyperv() -> bool:
    with X86KVM() as kvm:
        return bool(kvm.check_extension("KVM_CAP_HYPERV_CPUID"))


# --- the leaves (TLFS 2.4) -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "leaf", "registers"),
    [
        ("hv-relaxed", 0x40000000, (0x40000005, b"Micr", b"osof", b"t Hv")),
        ("hv-relaxed,hv-vendor-id=KVMHv", 0x40000000, (0x40000005, b"KVMH", b"v\0\0\0", b"")),
        ("hv-relaxed", 0x40000001, (b"Hv#1", 0, 0, 0)),
        ("hv-relaxed", 0x40000002, (14393, 10 << 16, 0, 0)),
        (
            "hv-relaxed,hv-version-id-build=7100,hv-version-id-major=6,hv-version-id-minor=1,"
            "hv-version-id-spack=3,hv-version-id-sbranch=4,hv-version-id-snumber=5",
            *(0x40000002, (7100, 6 << 16 | 1, 3, 4 << 24 | 5)),
        ),
        ("hv-relaxed", 0x40000003, (1 << 5, 0, 0, 1 << 3)),
        ("hv-time", 0x40000003, (1 << 5 | 1 << 1 | 1 << 9, 0, 0, 1 << 3)),
        ("hv-vpindex,hv-synic", 0x40000003, (0x20 | 1 << 6 | 1 << 2, 0x30, 0, 1 << 3)),
        ("hv-synic,x-hv-synic-kvm-only=on", 0x40000003, (0x20 | 1 << 2, 0, 0, 1 << 3)),
        ("hv-frequencies", 0x40000003, (0x20 | 1 << 11, 0, 0, 1 << 3 | 1 << 8)),
        ("hv-crash,hv-xmm-input", 0x40000003, (0x20, 0, 0, 1 << 3 | 1 << 10 | 1 << 4)),
        ("hv-relaxed", 0x40000004, (1 << 5, 0xFFFFFFFF, 0, 0)),
        ("hv-spinlocks=0xfff", 0x40000004, (0, 0xFFF, 0, 0)),
        ("hv-vapic", 0x40000004, (1 << 3, 0xFFFFFFFF, 0, 0)),
        ("hv-vapic,hv-apicv", 0x40000004, (1 << 9, 0xFFFFFFFF, 0, 0)),
        ("hv-vpindex,hv-ipi", 0x40000004, (1 << 10 | 1 << 11, 0xFFFFFFFF, 0, 0)),
        ("hv-vpindex,hv-tlbflush", 0x40000004, (1 << 2 | 1 << 11, 0xFFFFFFFF, 0, 0)),
        (
            "hv-relaxed,hv-no-nonarch-coresharing=on",
            0x40000004,
            (1 << 5 | 1 << 18, 2**32 - 1, 0, 0),
        ),
        ("hv-relaxed", 0x40000005, (0xFFFFFFFF, 64, 0, 0)),
        ("hv-relaxed,x-hv-max-vps=64", 0x40000005, (64, 64, 0, 0)),
        ("hv-emsr-bitmap", 0x40000000, (0x4000000A, b"Micr", b"osof", b"t Hv")),
        ("hv-emsr-bitmap", 0x4000000A, (1 << 19, 0, 0, 0)),
        ("hv-vapic,hv-evmcs,hv-tlbflush-direct", 0x4000000A, (1 << 17 | 0x101, 0, 0, 0)),
        ("hv-relaxed", 0x40000100, (0x40000101, b"KVMK", b"VMKV", b"M")),
        ("hv-relaxed,+kvmclock", 0x40000101, (0b1001, 0, 0, 0)),
    ],
)
def test_leaf(
    framework: Framework, settings: str, leaf: int, registers: tuple[int | bytes, ...]
) -> None:
    expected = [int.from_bytes(r, "little") if isinstance(r, bytes) else r for r in registers]
    assert list(cpuid(framework, settings).lookup(leaf)) == expected


def test_kvms_features_are_found_where_they_moved_to(framework: Framework) -> None:
    for settings in ("+kvmclock", "+kvmclock,hv-relaxed"):
        assert cpuid(framework, settings).words()["40000001.EAX"] == 0b1001
    assert "40000001.EAX" not in cpuid(framework, "hv-relaxed").words()
    raw = cpuid(framework, "+kvmclock,hv-relaxed").to_raw()
    assert CpuidTable.from_raw(raw).words()["40000001.EAX"] == 0b1001


def test_what_is_no_enlightenment_brings_no_hyper_v(framework: Framework) -> None:
    plain = cpuid(framework, "check=on")
    settings = (
        "hv-vendor-id=Me,hv-version-id-build=7100,hv-enforce-cpuid=on,hv-spinlocks=0xffffffff"
    )
    assert cpuid(framework, settings) == plain
    assert cpuid(framework, "hv-relaxed=off,hv-synic=off") == plain


def test_every_enlightenment_is_a_property_and_shows_itself(framework: Framework) -> None:
    every = ",".join(ENLIGHTENMENTS)
    with_all = cpuid(framework, every)
    for name in ENLIGHTENMENTS:
        assert PROPERTIES[name].type == "bool"
        others = {other for other, each in ENLIGHTENMENTS.items() if name in each.requires}
        kept = set(ENLIGHTENMENTS) - {name} - others
        while more := {k for k in kept if set(ENLIGHTENMENTS[k].requires) - kept}:
            kept -= more
        if "hv-synic" in kept and "hv-vpindex" not in kept:
            continue
        assert cpuid(framework, ",".join(sorted(kept))) != with_all, name


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("hv-stimer", "hv-stimer requires hv-synic and hv-time: set hv-synic=on,hv-time=on"),
        ("hv-synic", "hv-synic requires hv-vpindex: set hv-vpindex=on"),
        ("hv-tlbflush-ext,hv-vpindex", "hv-tlbflush-ext requires hv-tlbflush"),
        ("hv-evmcs", "hv-evmcs requires hv-vapic"),
        ("hv-passthrough", "hv-passthrough needs the accelerator kvm"),
    ],
)
def test_enlightenments_that_lack_others(framework: Framework, settings: str, says: str) -> None:
    with pytest.raises(ModelError, match=re.escape(says)):
        cpuid(framework, settings)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("hv-syndbg=on", "cpufw has no VMBus"),
        ("hv-vendor-id=ThirteenChars", "at most 12 characters"),
        ("hv-no-nonarch-coresharing=maybe", "expected on, off or auto"),
        ("hv-version-id-sbranch=256", "out of range, expected 0 to 255"),
        ("hv-spinlocks=many", "expected a whole number"),
    ],
)
def test_bad_setting(framework: Framework, setting: str, says: str) -> None:
    with pytest.raises(PropertyError, match=says):
        framework.cpu(f"Haswell,{setting}")


@pytest.mark.kvm
@pytest.mark.parametrize("setting", ["hv-relaxed", "hv-passthrough", "hv-spinlocks=0xfff"])
def test_kvm_without_it_says_so_by_its_capability(framework: Framework, setting: str) -> None:
    if has_hyperv():
        pytest.skip("this host's KVM has Hyper-V enlightenments")
    name = setting.partition("=")[0]
    says = f"{name}: this host's KVM has no Hyper-V enlightenments (KVM_CAP_HYPERV"
    with (
        pytest.raises(ModelError, match=re.escape(says)),
        framework.machine("pc", cpu=f"Haswell,check=off,{setting}"),
    ):
        pass


@pytest.mark.kvm
def test_kvm_that_lacks_one_names_it_with_its_place(framework: Framework) -> None:
    if not has_hyperv():
        pytest.skip("this host's KVM has no Hyper-V enlightenments at all")
    with X86KVM() as kvm:
        if kvm.check_extension("KVM_CAP_HYPERV_ENLIGHTENED_VMCS"):
            pytest.skip("this host's KVM has enlightened VMCSs")
    says = "hv-evmcs (KVM_CAP_HYPERV_ENLIGHTENED_VMCS, 40000004.EAX:14)"
    with (
        pytest.raises(ModelError, match=re.escape(says)),
        framework.machine("pc", cpu="Haswell,check=off,hv-vapic,hv-evmcs"),
    ):
        pass


# --- on KVM ----------------------------------------------------------------------------------


@pytest.mark.kvm
@pytest.mark.parametrize("settings", [f"{USUAL},{MORE}", f"{USUAL},{MORE},hv-enforce-cpuid"])
def test_guest_finds_what_it_was_promised(framework: Framework, settings: str) -> None:
    if not has_hyperv():
        pytest.skip("this host's KVM has no Hyper-V enlightenments")
    cpu = f"Haswell,check=off,+invtsc,{settings}"
    report = run_guest(framework, image_of("hyperv"), cpu=cpu)
    for check in checks_of("hyperv"):
        report.require(check)
    with framework.machine("pc", cpu=cpu) as machine:
        table = machine.cpus()[0].cpuid  # type: ignore[attr-defined]
    seen = [[int(word, 16) for word in line.split()[1:]] for line in report.text.splitlines()
            if line.startswith("leaf ")]  # fmt: skip
    assert {leaf for leaf, *_ in seen} >= {0x40000005, 0x40000101}
    for leaf, *registers in seen:
        assert registers == list(table.lookup(leaf)), hex(leaf)


@pytest.mark.kvm
@pytest.mark.parametrize(("word", "outcome"), [("to-crash", "panicked"), ("to-reset", "reset")])
def test_guest_ends_by_its_msrs(framework: Framework, word: str, outcome: str) -> None:
    if not has_hyperv():
        pytest.skip("this host's KVM has no Hyper-V enlightenments")
    cpu = f"Haswell,check=off,{USUAL},{MORE}"
    report = run_guest(framework, image_of("hyperv", word), cpu=cpu, reboot=False)
    assert report.outcome.reason == outcome, report.text


@pytest.mark.kvm
def test_all_that_kvm_has(framework: Framework) -> None:
    if not has_hyperv():
        pytest.skip("this host's KVM has no Hyper-V enlightenments")
    with framework.machine("pc", cpu="Haswell,check=off,hv-passthrough") as machine:
        table = machine.cpus()[0].cpuid  # type: ignore[attr-defined]
        offered = machine.accelerator.hyperv  # type: ignore[union-attr]
    assert table.lookup(0x40000000)[1:] == offered.lookup(0x40000000)[1:]
    features = table.lookup(0x40000003)[0]
    assert features
    assert features & offered.lookup(0x40000003)[0] == features


@pytest.mark.kvm
def test_each_cpu_has_its_index_and_a_reset_undoes_what_guests_did(framework: Framework) -> None:
    if not has_hyperv():
        pytest.skip("this host's KVM has no Hyper-V enlightenments")
    with framework.machine("pc", cpu=f"Haswell,check=off,{USUAL}", smp="3") as machine:
        cpus = machine.cpus()
        for number, cpu in enumerate(cpus):
            assert isinstance(cpu, X86CPU)
            assert cpu.vcpu is not None
            assert cpu.vcpu.vcpu.get_msrs([0x40000002]) == {0x40000002: number}
        last = cpus[-1].vcpu.vcpu  # type: ignore[attr-defined]
        at_first = last.get_msrs([0x40000000, 0x40000080, 0x40000090])
        last.set_msrs({0x40000000: 1 << 63, 0x40000080: 1, 0x40000090: 0x1FF})
        cpus[-1].reset()
        assert last.get_msrs(list(at_first)) == at_first


@pytest.mark.kvm
def test_saved_state_holds_what_guests_did(framework: Framework) -> None:
    if not has_hyperv():
        pytest.skip("this host's KVM has no Hyper-V enlightenments")
    did = {0x40000000: 1 << 63, 0x40000080: 1, 0x40000090: 0x1FF, 0x400000B6: 0x608}
    cpu = f"Haswell,check=off,{USUAL}"
    with framework.machine("pc", cpu=cpu) as first, framework.machine("pc", cpu=cpu) as second:
        old, new = (m.cpus()[0].vcpu.vcpu for m in (first, second))  # type: ignore[attr-defined]
        old.set_msrs(did)
        msrs = MsrList(first.accelerator.kvm)  # type: ignore[union-attr]
        VcpuState.read(old, msrs).write(new)
        assert new.get_msrs(did) == did
