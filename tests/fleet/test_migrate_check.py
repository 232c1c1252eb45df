"""Whether guests can go from host to host, and that the reasons are the right ones by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from captures import file

from cpufw.core.capture import HostCapture, Tsc
from cpufw.errors import ModelError, NotFoundError
from cpufw.fleet.capture import load_capture
from cpufw.fleet.migrate import Finding, MigrationCheck, Verdict, check_migrations
from cpufw.framework import Framework


@pytest.fixture(scope="module")
def hosts(framework: Framework) -> dict[str, HostCapture]:
    names = (
        "haswell-ep", "broadwell-ep", "cascade-lake", "ice-lake-sp", "epyc-milan", "epyc-genoa",
        "core-i9-7900x", "pvm",
    )  # fmt: skip
    return {name: load_capture(file(name), framework) for name in names}


def check(framework: Framework, cpu: str, source: HostCapture, target: HostCapture) -> Any:
    (found,) = check_migrations(framework, [cpu], source, [target])
    return found


def said(found: MigrationCheck, verdict: Verdict) -> dict[str, Finding]:
    return {each.subject: each for each in found.findings if each.verdict is verdict}


@pytest.mark.parametrize(
    ("cpu", "source", "target"),
    [
        ("Haswell-v4", "haswell-ep", "haswell-ep"),
        ("Haswell-v4", "haswell-ep", "cascade-lake"),
        ("Cascadelake-Server-v5", "cascade-lake", "ice-lake-sp"),
        ("Cascadelake-Server-v5", "ice-lake-sp", "cascade-lake"),
        ("EPYC-Milan-v2", "epyc-genoa", "epyc-milan"),
        ("host", "epyc-milan", "epyc-milan"),
        ("base", "haswell-ep", "epyc-milan"),
    ],
)
def test_a_guest_can_go_where_its_model_runs(
    cpu: str, source: str, target: str, framework: Framework, hosts: dict[str, HostCapture]
) -> None:
    found = check(framework, cpu, hosts[source], hosts[target])
    assert found.verdict is Verdict.YES, found.findings


def test_features_that_the_target_lacks_are_named_with_kind_and_place(
    framework: Framework, hosts: dict[str, HostCapture]
) -> None:
    found = check(framework, "Icelake-Server-v6,+vmx", hosts["ice-lake-sp"], hosts["cascade-lake"])
    assert found.verdict is Verdict.NO
    blockers = said(found, Verdict.NO)
    table = framework.catalogue("x86_64").table
    supported = hosts["cascade-lake"].supported_features(table)
    assert blockers
    assert not [name for name in blockers if name in supported]
    assert (blockers["avx512vbmi"].aspect, blockers["avx512vbmi"].place) == ("CPUID", "7.0.ECX:1")
    assert (blockers["taa-no"].aspect, blockers["taa-no"].place) == ("MSR", "MSR.10A:8")
    nested = {name for name, each in blockers.items() if each.aspect == "nested"}
    assert nested
    assert all(name.startswith("vmx-") for name in nested)


def test_nested_features_do_not_matter_to_a_guest_without_vmx(
    framework: Framework, hosts: dict[str, HostCapture]
) -> None:
    found = check(framework, "Icelake-Server-v6", hosts["ice-lake-sp"], hosts["cascade-lake"])
    assert "nested" not in {each.aspect for each in found.findings}


def test_svm_counts_as_nested(framework: Framework, hosts: dict[str, HostCapture]) -> None:
    cpu = "EPYC-Milan-v2,+svm,+npt,+nrip-save"
    milan = hosts["epyc-milan"]
    bare = replace(milan, features=tuple(f for f in milan.features if f != "nrip-save"))
    assert check(framework, cpu, milan, milan).verdict is Verdict.YES
    (blocker,) = said(check(framework, cpu, milan, bare), Verdict.NO).values()
    assert (blocker.aspect, blocker.subject) == ("nested", "nrip-save")


def test_what_the_cpu_has_and_kvm_does_not_give_is_told_apart(
    framework: Framework, hosts: dict[str, HostCapture]
) -> None:
    found = check(framework, "Haswell-v4", hosts["haswell-ep"], hosts["pvm"])
    blockers = said(found, Verdict.NO)
    assert "the CPU of pvm" in blockers["avx2"].reason
    assert "kvm there does not give it" in blockers["avx2"].reason
    assert "does not have it" in blockers["spec-ctrl"].reason


def test_what_the_source_does_not_give_is_a_remark_and_no_obstacle(
    framework: Framework, hosts: dict[str, HostCapture]
) -> None:
    found = check(framework, "Haswell-v1", hosts["haswell-ep"], hosts["haswell-ep"])
    assert found.verdict is Verdict.YES
    assert {"hle", "rtm"} == set(said(found, Verdict.YES))


def test_what_a_capture_does_not_tell_makes_the_answer_unknown(
    framework: Framework, hosts: dict[str, HostCapture]
) -> None:
    cpu = "Haswell-v1,+arch-capabilities,+rdctl-no"
    source, target = hosts["ice-lake-sp"], hosts["core-i9-7900x"]
    with_msr = replace(target, features=(*target.features, "arch-capabilities", "spec-ctrl"))
    found = check(framework, cpu, source, with_msr)
    assert "rdctl-no" in said(found, Verdict.UNKNOWN)
    assert "kvmclock" in said(found, Verdict.UNKNOWN)
    assert found.verdict is Verdict.UNKNOWN
    assert check(framework, cpu, source, target).verdict is Verdict.NO  # a no outweighs it


@pytest.mark.parametrize(
    ("ppm", "scaling", "verdict"),
    [
        (0, False, Verdict.YES),
        (249, False, Verdict.YES),
        (-249, False, Verdict.YES),
        (251, False, Verdict.NO),
        (-251, False, Verdict.NO),
        (251, True, Verdict.YES),
        (-500_000, True, Verdict.YES),
        (251, None, Verdict.UNKNOWN),
        (None, False, Verdict.UNKNOWN),
        (None, True, Verdict.YES),
    ],
)
def test_tsc_frequency(
    ppm: int | None,
    scaling: bool | None,
    verdict: Verdict,
    framework: Framework,
    hosts: dict[str, HostCapture],
) -> None:
    source = replace(hosts["haswell-ep"], tsc=Tsc(2_000_000, False))
    khz = None if ppm is None else 2_000_000 + 2 * ppm
    found = check(framework, "Haswell-v4", source, replace(source, tsc=Tsc(khz, scaling)))
    assert found.verdict is verdict
    if verdict is Verdict.NO:
        (blocker,) = said(found, verdict).values()
        assert blocker.aspect == "TSC"
        assert f"{khz} kHz" in blocker.reason
        assert "251 ppm" in blocker.reason


@pytest.mark.parametrize(
    ("cpu", "source_bits", "target_bits", "verdict"),
    [
        ("Haswell-v4", 46, 40, Verdict.YES),  # the model's own 40
        ("Haswell-v4", 46, 39, Verdict.NO),
        ("Haswell-v4", 39, 39, Verdict.YES),  # as on the source
        ("Haswell-v4,phys-bits=46", 46, 40, Verdict.NO),
        ("Haswell-v4,phys-bits=39", 46, 39, Verdict.YES),
        ("host", 46, 39, Verdict.NO),
        ("Haswell-v4", 46, None, Verdict.UNKNOWN),
    ],
)
def test_physical_address_bits(
    cpu: str,
    source_bits: int,
    target_bits: int | None,
    verdict: Verdict,
    framework: Framework,
    hosts: dict[str, HostCapture],
) -> None:
    def with_bits(bits: int | None) -> HostCapture:
        host = hosts["haswell-ep"]
        identity = {key: value for key, value in host.identity.items() if key != "phys-bits"}
        return replace(host, identity=identity | ({} if bits is None else {"phys-bits": bits}))

    found = check(framework, cpu, with_bits(source_bits), with_bits(target_bits))
    assert found.verdict is verdict
    if verdict is Verdict.NO:
        assert set(said(found, verdict)) == {"phys-bits"}


def test_xsave_state_must_lie_at_the_same_place(
    framework: Framework, hosts: dict[str, HostCapture]
) -> None:
    milan = hosts["epyc-milan"]
    pkru = "0x0000000d 0x09: eax=0x00000008 ebx=0x00000a80"
    assert pkru in milan.raw["cpuid"]
    moved = milan.raw["cpuid"].replace(pkru, "0x0000000d 0x09: eax=0x00000008 ebx=0x00000340")
    other = replace(milan, raw={"cpuid": moved})
    (blocker,) = said(check(framework, "EPYC-Milan-v2", milan, other), Verdict.NO).values()
    assert blocker.aspect == "XSAVE"
    assert "component 9 (pkru) has 8 bytes at 2688" in blocker.reason
    assert "8 at 832" in blocker.reason
    # a guest without the feature has no such state
    assert check(framework, "EPYC-Milan-v2,-pku", milan, other).verdict is Verdict.YES


def test_host_is_what_the_source_gives_without_what_ties_it_there(
    framework: Framework, hosts: dict[str, HostCapture]
) -> None:
    found = check(framework, "host", hosts["ice-lake-sp"], hosts["cascade-lake"])
    assert {"avx512vbmi", "taa-no"} <= set(said(found, Verdict.NO))
    source = replace(hosts["ice-lake-sp"], features=(*hosts["ice-lake-sp"].features, "invtsc"))
    assert check(framework, "host", source, source).verdict is Verdict.YES
    found = check(framework, "host,+invtsc", source, source)
    assert set(said(found, Verdict.NO)) == {"invtsc"}
    assert "tied to its host" in said(found, Verdict.NO)["invtsc"].reason


def test_another_vendor_is_a_remark(framework: Framework, hosts: dict[str, HostCapture]) -> None:
    found = check(framework, "pentium3", hosts["haswell-ep"], hosts["epyc-milan"])
    assert "vendor" in said(found, Verdict.YES)


def test_every_cpu_is_checked_against_every_target(
    framework: Framework, hosts: dict[str, HostCapture]
) -> None:
    targets = [hosts["haswell-ep"], hosts["cascade-lake"]]
    cpus = ["Haswell-v4", "SandyBridge-v2,-pcid"]
    found = check_migrations(framework, cpus, hosts["broadwell-ep"], targets)
    assert [(each.cpu, each.target) for each in found] == [
        (cpu, target.name) for cpu in cpus for target in targets
    ]
    assert {each.source for each in found} == {hosts["broadwell-ep"].name}


def test_hosts_of_two_architectures_and_unknown_models_are_refused(
    framework: Framework, hosts: dict[str, HostCapture]
) -> None:
    other = replace(hosts["haswell-ep"], name="there", arch="sparc64")
    with pytest.raises(ModelError, match="there is a host of architecture sparc64"):
        check(framework, "Haswell-v4", hosts["haswell-ep"], other)
    with pytest.raises(NotFoundError, match="did you mean Haswell-v4"):
        check(framework, "Haswel-v4", hosts["haswell-ep"], hosts["haswell-ep"])


def test_settings_that_need_a_capability_of_the_targets_kvm(
    framework: Framework, hosts: dict[str, HostCapture]
) -> None:
    cpu = "pentium3-v1,hv-relaxed,hv-vpindex,hv-ipi,kvm-pv-enforce-cpuid=on"
    pvm = hosts["pvm"]
    refused = said(check(framework, cpu, pvm, pvm), Verdict.NO)
    assert {"hv-relaxed", "hv-vpindex", "hv-ipi"} == {name for name in refused if "hv-" in name}
    assert refused["hv-ipi"].reason == f"{pvm.name} has no KVM_CAP_HYPERV_SEND_IPI"
    able = ("KVM_CAP_HYPERV_CPUID", "KVM_CAP_HYPERV_SEND_IPI", "KVM_CAP_HYPERV_VP_INDEX")
    capabilities = dict(pvm.accelerator_capabilities) | dict.fromkeys(able, 1)
    other = replace(pvm, accelerator_capabilities=capabilities)
    assert not said(check(framework, cpu, pvm, other), Verdict.NO).keys() & refused.keys()
    silent = check(framework, "Haswell-v4,hv-relaxed", hosts["haswell-ep"], hosts["cascade-lake"])
    assert "hv-relaxed" in said(silent, Verdict.UNKNOWN)
