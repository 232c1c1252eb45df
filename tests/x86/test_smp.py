"""Many CPUs: they come up under the APIC ids of the topology, and what cannot be is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from facility_guests import EMULATED_HOST, run_guest
from guest_compiler import image_of
from guest_programs import command, environment

from cpufw.errors import AcceleratorError, TopologyError, UsageError
from cpufw.framework import Framework
from cpufw_x86.kvm import X86KVM
from cpufw_x86.smp_limits import check_vcpus

CHECKS = ("all_cpus_come_up", "apic_ids_are_those_of_cpuid", "each_cpu_runs_what_it_is_given")


def start_all(
    framework: Framework, smp: str, *, x2apic: bool = False, **options: Any
) -> tuple[int, int]:
    """Let a guest start all CPUs; how many came, and the highest APIC id among them."""
    image = image_of("smp", "x2apic" if x2apic else "")
    report = run_guest(framework, image, cpu="Haswell,check=off", smp=smp, timeout=200, **options)
    for check in CHECKS:
        report.require(check)
    words = report.text.split()
    return int(words[words.index("of") - 1]), int(words[words.index("to") + 1])


@pytest.mark.kvm
@pytest.mark.parametrize(
    ("smp", "count", "highest"),
    [
        ("2", 2, 1),
        ("64", 64, 63),
        ("12,sockets=2,cores=3,threads=2", 12, 8 + 4 + 1),  # three cores take two bits
        ("9,sockets=3,cores=3,threads=1", 9, 8 + 2),
    ],
)
def test_all_cpus_come_up(framework: Framework, smp: str, count: int, highest: int) -> None:
    assert start_all(framework, smp) == (count, highest)


@pytest.mark.kvm
@pytest.mark.parametrize("irqchip", ["on", "split", None])
def test_x2apic_reaches_beyond_255(framework: Framework, irqchip: str | None) -> None:
    found = start_all(framework, "260", x2apic=True, kernel_irqchip=irqchip)
    assert found == (260, 259)


@pytest.mark.kvm
@pytest.mark.skipif(EMULATED_HOST, reason="takes minutes where the host itself is emulated")
def test_1024_cpus_come_up(framework: Framework) -> None:
    assert start_all(framework, "1024", x2apic=True) == (1024, 1023)


@pytest.mark.kvm
def test_sparse_ids_may_go_beyond_1024(framework: Framework) -> None:
    # 33 cores take six bits: the last of 3 x 33 x 1 CPUs has the id 2 << 6 | 32.
    assert start_all(framework, "99,sockets=3,cores=33", x2apic=True) == (99, 160)
    with framework.machine("pc", cpu="Haswell,check=off", smp="1,maxcpus=1020,sockets=20") as many:
        assert many.slots[-1].arch_id == 19 << 6 | 50


@pytest.mark.kvm
def test_more_than_the_machine_type_has(framework: Framework) -> None:
    with pytest.raises(TopologyError, match=r"1025 .* 1024"):
        framework.machine("pc", smp="1025")


@pytest.mark.kvm
def test_many_cpus_need_x2apic(framework: Framework) -> None:
    with pytest.raises(TopologyError, match=r"255, and without x2apic .* 254"):
        framework.machine("pc", cpu="Haswell,-x2apic", smp="256")


@pytest.mark.kvm
def test_irqchip_that_is_none(framework: Framework) -> None:
    with pytest.raises(UsageError, match="kernel_irqchip 'off' is not one of on, split"):
        framework.machine("pc", kernel_irqchip="off")


class SmallKvm(X86KVM):
    """The host's KVM, as an older kernel's with less room."""

    def check_extension(self, capability: int | str) -> int:
        small = {"KVM_CAP_MAX_VCPUS": 8, "KVM_CAP_MAX_VCPU_ID": 16}
        return small.get(str(capability), 0)


@pytest.mark.kvm
def test_more_than_kvm_allows() -> None:
    with SmallKvm() as kvm:
        check_vcpus(kvm, range(8), lambda: True)
        with pytest.raises(AcceleratorError, match=r"9 vCPUs .* KVM allows 8 .*KVM_CAP_MAX_VCPUS"):
            check_vcpus(kvm, range(9), lambda: True)
        with pytest.raises(AcceleratorError, match=r"up to 16, .* below 16 .*KVM_CAP_MAX_VCPU_ID"):
            check_vcpus(kvm, [0, 8, 16], lambda: True)


_LIMITED = """
import resource, sys
soft, hard = map(int, sys.argv[1:3])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
sys.argv[1:] = sys.argv[3:]
from cpufw.cli import main
sys.exit(main())
"""


@pytest.mark.kvm
@pytest.mark.parametrize("hard", [4096, 100])
def test_open_files(hard: int) -> None:
    arguments = command("run", "--smp", "150", "--timeout", "60", image_of("smp"))[3:]
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, "80", str(hard), *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=100,
    )
    if hard < 150:
        assert "150 vCPUs need" in done.stderr
        assert "open files, and this process may have 100" in done.stderr
    else:
        assert "ok all_cpus_come_up" in done.stdout
