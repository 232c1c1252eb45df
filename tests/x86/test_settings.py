"""Settings of a CPU that are not features: their effect, and the sentence where there is none."""

from __future__ import annotations

import pytest

from cpufw.errors import ModelError, PropertyError
from cpufw.framework import Framework
from cpufw_x86.cpu import X86CPU
from cpufw_x86.cpuid import CpuidTable
from cpufw_x86.feature_msrs import feature_words_of, msr_values
from cpufw_x86.kvm import X86KVM


def cpuid(framework: Framework, cpu: str) -> CpuidTable:
    realized = framework.cpu(cpu)
    realized.realize()
    assert isinstance(realized, X86CPU)
    return realized.cpuid


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ("", 0xD),
        ("min-level=0x1f", 0x1F),
        ("min-level=4", 0xD),  # leaf 0xD's features raise it again
        ("level=4", 4),  # exact
        ("min-level=0x20,level=7", 7),
        ("+intel-pt", 0x14),
        ("+intel-pt,x-intel-pt-auto-level=off", 0xD),
        ("+intel-pt,level=0xd", 0xD),
    ],
)
def test_level(framework: Framework, settings: str, level: int) -> None:
    assert cpuid(framework, f"Haswell,{settings}" if settings else "Haswell").lookup(0)[0] == level


def test_a_feature_that_raises_no_level_stays_out_of_sight(framework: Framework) -> None:
    table = cpuid(framework, "pentium,+spec-ctrl")
    assert table.lookup(0)[0] == 1
    assert "7.0.EDX" not in table.words()


@pytest.mark.parametrize("off", ["hv-relaxed=off", "hv-spinlocks=0xffffffff", "lmce=off"])
def test_what_is_off_may_be_said_to_be(framework: Framework, off: str) -> None:
    assert cpuid(framework, f"Haswell,{off}") == cpuid(framework, "Haswell")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("xen-vapic=on", "it needs guests of Xen"),
        ("lbr-fmt=0x40", "expected 0 to 0x3f"),
        ("ucode-rev=-1", "out of range"),
        ("phys-bits=31", "expected 32 to 52, or 0 for the default"),
    ],
)
def test_a_property_that_cannot_be_had(framework: Framework, settings: str, says: str) -> None:
    with pytest.raises(PropertyError, match=says):
        framework.cpu(f"Haswell,{settings}")


def test_guest_physical_bits_lie_within_the_physical_ones(framework: Framework) -> None:
    assert cpuid(framework, "Haswell,guest-phys-bits=36").lookup(0x80000008)[0] == 0x243028
    with pytest.raises(
        PropertyError, match="guest-phys-bits=48 is out of range, expected 32 to 40"
    ):
        cpuid(framework, "Haswell,guest-phys-bits=48")


def test_a_model_without_caches_of_its_own_has_only_the_usual_ones(framework: Framework) -> None:
    with pytest.raises(ModelError, match="Haswell has no caches of its own"):
        cpuid(framework, "Haswell,legacy-cache=off")
    assert cpuid(framework, "EPYC,legacy-cache=off") == cpuid(framework, "EPYC")
    assert cpuid(framework, "EPYC,legacy-cache=on") != cpuid(framework, "EPYC")


# --- features in MSRs ----------------------------------------------------------------------


def test_vmx_features_come_with_vmx_and_not_without(framework: Framework) -> None:
    plain, nested = framework.cpu("Haswell"), framework.cpu("Haswell,+vmx")
    hidden = set(plain.model.companions["vmx"])
    assert hidden >= {"vmx-ept", "vmx-vpid", "vmx-unrestricted-guest"}
    assert not hidden & set(plain.expand().features)
    assert hidden <= set(nested.expand().features)
    without = framework.cpu("Haswell,+vmx,-vmx-ept").expand().features
    assert not {"vmx-ept", "vmx-unrestricted-guest"} & set(without)
    with pytest.raises(ModelError, match=r"\+vmx-ept requires vmx"):
        framework.cpu("Haswell,+vmx-ept").expand()


def test_a_control_msrs_word_is_the_half_that_may_be_one() -> None:
    must = 0x0401E172  # of IA32_VMX_TRUE_PROCBASED_CTLS, as a CPU may have it
    host = {0x48E: 0xFFF9FFFE << 32 | must, 0x48B: 0x7FFFF << 32}
    word = 0xB5986DFA
    values = msr_values({"MSR.48E": word, "MSR.48B": 0x2}, host)
    assert values == {0x48E: (word | must) << 32 | must, 0x48B: 0x2 << 32}
    assert feature_words_of(values) == {"MSR.48E": word | must, "MSR.48B": 0x2}


def test_what_is_no_feature_in_an_msr_of_vmx_is_the_hosts() -> None:
    revision_and_sizes = 0x00D8100000000004 & ~(0b101 << 54)
    host = {0x480: revision_and_sizes | 1 << 54 | 1 << 55, 0x485: 0x7004C1E7}
    values = msr_values({"MSR.480": 1 << 55, "MSR.485": 0x20000060}, host)
    assert values[0x480] == host[0x480] & ~(1 << 54) | 1 << 55
    assert values[0x485] == 0x7004C1E7 & ~0x600001E0 | 0x20000060


def test_msrs_of_vmx_that_kvm_lacks_are_left_out() -> None:
    assert msr_values({"MSR.48B": 2, "MSR.10A": 0x2B, "MSR.CF": 1 << 5}, {}) == {
        0x10A: 0x2B,
        0xCF: 1 << 5,
    }


@pytest.mark.kvm
def test_a_guest_has_the_microcode_revision_it_is_given(framework: Framework) -> None:
    cpu = "Haswell,check=off,ucode-rev=0x1234500000000,kvm-pv-enforce-cpuid=on"
    with framework.machine("pc", cpu=cpu) as machine:
        plugged = machine.cpus()[0]
        assert isinstance(plugged, X86CPU)
        assert plugged.vcpu is not None
        for _ in range(2):
            assert plugged.vcpu.vcpu.get_msrs([0x8B]) == {0x8B: 0x1234500000000}
            plugged.reset()


@pytest.mark.kvm
def test_local_machine_checks_where_kvm_has_them(framework: Framework) -> None:
    with X86KVM() as kvm:
        supported = bool(kvm.get_mce_cap_supported() & 1 << 27)
    if not supported:
        with (
            pytest.raises(ModelError, match=r"lmce: this host's KVM has no local machine checks"),
            framework.machine("pc", cpu="Haswell,check=off,lmce=on"),
        ):
            pass
        return
    with framework.machine("pc", cpu="Haswell,check=off,lmce=on") as machine:
        vcpu = machine.cpus()[0].vcpu.vcpu  # type: ignore[attr-defined]
        assert vcpu.get_msrs([0x179])[0x179] & 1 << 27


@pytest.mark.kvm
def test_branch_records_are_the_hosts_or_none(framework: Framework) -> None:
    with pytest.raises(ModelError, match="lbr-fmt=0x5 needs the performance counters: set pmu=on"):
        cpuid(framework, "Haswell,lbr-fmt=5")
    accelerator = framework.open_accelerator("x86_64", "kvm")
    try:
        own = accelerator.feature_msrs.get(0x345, 0) & 0x3F  # type: ignore[attr-defined]
    finally:
        accelerator.close()
    other = own ^ 1 or 2
    with (
        pytest.raises(ModelError, match=f"this host's KVM has format {own:#x}"),
        framework.machine("pc", cpu=f"Haswell,check=off,pmu=on,lbr-fmt={other}"),
    ):
        pass


@pytest.mark.kvm
def test_feature_msrs_are_set_and_read_back(framework: Framework) -> None:
    table = framework.catalogue("x86_64").table
    accelerator = framework.open_accelerator("x86_64", "kvm")
    try:
        supported = accelerator.supported_features(table)
    finally:
        accelerator.close()
    in_msr = table.set(f.name for f in table if f.places[0].startswith("MSR.10A:"))
    if not supported & in_msr:
        pytest.skip("this host's KVM has no feature in IA32_ARCH_CAPABILITIES")
    wanted = supported & in_msr
    cpu = ",".join(["qemu64", "+arch-capabilities", *(f"+{name}" for name in wanted)])
    with framework.machine("pc", cpu=f"{cpu},check=off") as machine:
        plugged = machine.cpus()[0]
        assert isinstance(plugged, X86CPU)
        assert plugged.vcpu is not None
        word = plugged.vcpu.vcpu.get_msrs([0x10A])[0x10A]
        assert plugged.granted & in_msr == wanted
    bits = {int(table[name].places[0].partition(":")[2]) for name in wanted}
    assert word == sum(1 << bit for bit in bits)


@pytest.mark.kvm
def test_a_named_model_has_the_hosts_vendor_as_on_qemu_but_in_a_guest_of_ours(
    framework: Framework,
) -> None:
    accelerator = framework.open_accelerator("x86_64", "kvm")
    try:
        host = accelerator.host_identity()
    finally:
        accelerator.close()
    for machine_type, cpu, vendor in (
        ("q35", "Haswell", host["vendor"]),
        ("q35", "EPYC", host["vendor"]),
        ("q35", "EPYC,vendor=AuthenticAMD", "AuthenticAMD"),
        ("q35", "Haswell,vendor=HygonGenuine", "HygonGenuine"),
        ("pc", "EPYC", "AuthenticAMD"),
        ("pc", "Haswell", "GenuineIntel"),
    ):
        with framework.machine(machine_type, cpu=f"{cpu},check=off", accel="kvm") as machine:
            table = machine.cpus()[0].cpuid  # type: ignore[attr-defined]
        _, ebx, ecx, edx = table.lookup(0)
        assert b"".join(r.to_bytes(4, "little") for r in (ebx, edx, ecx)).decode() == vendor


@pytest.mark.kvm
def test_address_bits_of_the_host(framework: Framework) -> None:
    accelerator = framework.open_accelerator("x86_64", "kvm")
    try:
        bits = accelerator.host_identity()["phys-bits"]
    finally:
        accelerator.close()
    for cpu, expected in (
        ("Haswell", 40),
        ("Haswell,host-phys-bits=on", bits),
        ("Haswell,host-phys-bits=on,host-phys-bits-limit=36", 36),
        ("max", bits),
    ):
        with framework.machine("q35", cpu=f"{cpu},check=off", accel="kvm") as machine:
            table = machine.cpus()[0].cpuid  # type: ignore[attr-defined]
        assert table.lookup(0x80000008)[0] & 0xFF == expected, cpu


@pytest.mark.kvm
def test_a_guest_is_told_a_tsc_frequency_that_stays(framework: Framework) -> None:
    with framework.machine("pc", cpu="Haswell,check=off") as machine:
        plugged = machine.cpus()[0]
        assert isinstance(plugged, X86CPU)
        assert plugged.vcpu is not None
        khz = plugged.vcpu.vcpu.get_tsc_khz()
        assert plugged.cpuid.limit(0x40000000) == 0x40000001
    with framework.machine("pc", cpu=f"Haswell,tsc-frequency={khz}000,check=off") as machine:
        told = machine.cpus()[0].cpuid  # type: ignore[attr-defined]
    assert told.lookup(0x40000010) == (khz, 1_000_000, 0, 0)
    quiet = f"Haswell,tsc-frequency={khz}000,vmware-cpuid-freq=off,check=off"
    with framework.machine("pc", cpu=quiet) as machine:
        assert machine.cpus()[0].cpuid.limit(0x40000000) == 0x40000001  # type: ignore[attr-defined]
