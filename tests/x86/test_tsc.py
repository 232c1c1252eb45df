"""The time-stamp counter: how fast a guest is told that it runs, and what cannot be."""

from __future__ import annotations

import pytest
from facility_guests import run_guest
from guest_compiler import checks_of, image_of

from cpufw.errors import ModelError
from cpufw.framework import Framework
from cpufw_x86.kvm import X86KVM

pytestmark = pytest.mark.kvm


def host_khz() -> int:
    with X86KVM() as kvm, kvm.create_vm() as vm, vm.create_vcpu(0) as vcpu:
        return vcpu.get_tsc_khz()


def scales() -> bool:
    with X86KVM() as kvm:
        return bool(kvm.check_extension("KVM_CAP_TSC_CONTROL"))


def test_a_guest_measures_what_it_is_told(framework: Framework) -> None:
    khz = host_khz()
    cpu = f"Haswell,tsc-frequency={khz * 1000},check=off"
    report = run_guest(framework, image_of("tsc", _all_but("it_runs_as_fast_as_kvm_says")), cpu=cpu)
    report.require("it_runs_as_fast_as_kvm_says")
    assert f"tsc {khz} kHz told" in report.text


@pytest.mark.parametrize("factor", [0.5, 0.999, 1.001, 2])
def test_a_frequency_that_the_host_does_not_have(framework: Framework, factor: float) -> None:
    if scales():
        pytest.skip("this host scales its TSC")
    own = host_khz()
    wanted = int(own * factor) * 1000
    message = (
        f"tsc-frequency={wanted}: .*{own} kHz .*cannot be scaled.*tsc-frequency={own}000 works"
    )
    with pytest.raises(ModelError, match=message):
        framework.machine("pc", cpu=f"Haswell,tsc-frequency={wanted},check=off")


def test_a_frequency_so_near_that_it_is_the_same(framework: Framework) -> None:
    near = host_khz() + host_khz() // 10_000  # 100 parts in a million
    with framework.machine("pc", cpu=f"Haswell,tsc-frequency={near}000,check=off") as machine:
        assert machine.cpus()[0].cpuid.lookup(0x40000010)[0] == near  # type: ignore[attr-defined]


def test_a_guest_is_not_told_what_may_change(framework: Framework) -> None:
    with framework.machine("pc", cpu="Haswell,check=off") as machine:
        highest = machine.cpus()[0].cpuid.lookup(0x40000000)[0]  # type: ignore[attr-defined]
        assert highest == 0x40000001


def _all_but(check: str) -> str:

    return " ".join(name for name in checks_of("tsc") if name != check)
