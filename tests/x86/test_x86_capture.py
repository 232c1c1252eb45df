"""The host's own CPU: its CPUID through the kernel's device, and its flags where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cpufw.framework import Framework
from cpufw_x86.accelerator import identity_of_table
from cpufw_x86.capture import X86CaptureRules, cpuinfo_features, host_cpuid
from cpufw_x86.cpuid import CpuidLeaf, CpuidTable
from cpufw_x86.dumps import without_apic_ids
from cpufw_x86.words import feature_words

DEVICE = Path("/dev/cpu/0/cpuid")

CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
microcode\t: 0x49
flags\t\t: fpu vme ds_cpl pclmulqdq tsc_adjust lahf_lm a_flag_of_linux_alone

processor\t: 1
flags\t\t: fpu avx512f
"""


@pytest.mark.skipif(not os.access(DEVICE, os.R_OK), reason=f"{DEVICE} cannot be read")
def test_the_device_and_the_kernel_agree_on_the_cpu(framework: Framework) -> None:
    cpuid = host_cpuid()
    assert cpuid is not None
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    told = dict(tuple(map(str.strip, line.split(":", 1))) for line in lines if ":" in line)
    identity = identity_of_table(cpuid)
    assert identity["vendor"] == told["vendor_id"]
    assert identity["family"] == int(told["cpu family"])
    assert identity["model"] == int(told["model"])
    assert identity["stepping"] == int(told["stepping"])
    assert identity["model-id"] == told["model name"]
    # The kernel clears flags and adds some of its own; these it takes as they are.
    table = framework.catalogue("x86_64").table
    there = feature_words(table).decode(cpuid.words())
    plain = table.set(["fpu", "tsc", "msr", "cx8", "sse2", "avx2", "bmi1", "nx", "lm", "syscall"])
    assert plain & there == plain & cpuinfo_features(table)


def test_without_the_device_there_is_no_cpuid(tmp_path: Path) -> None:
    assert host_cpuid(tmp_path / "none") is None
    empty = tmp_path / "empty"
    empty.touch()
    assert host_cpuid(empty) is None


def test_flags_are_read_by_linux_own_names(tmp_path: Path, framework: Framework) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    found = cpuinfo_features(framework.catalogue("x86_64").table, path)
    assert set(found) == {"fpu", "vme", "ds-cpl", "pclmulqdq", "tsc-adjust", "lahf-lm"}
    assert not cpuinfo_features(framework.catalogue("x86_64").table, tmp_path / "none")


def test_what_tells_the_cpus_of_a_host_apart_is_left_out() -> None:
    def answers(apic_id: int) -> CpuidTable:
        return CpuidTable(
            [
                CpuidLeaf(0x1, 0, 0x306F2, apic_id << 24 | 0x100800, 1, 2),
                CpuidLeaf(0xB, 0, 1, 2, 0x100, apic_id),
                CpuidLeaf(0xB, 1, 4, 8, 0x201, apic_id),
                CpuidLeaf(0x1F, 0, 1, 2, 0x100, apic_id),
                CpuidLeaf(0x8000001E, 0, apic_id, 0x100, 0, 0),
            ]
        )

    first, other = without_apic_ids(answers(0)), without_apic_ids(answers(7))
    assert first.to_raw() == other.to_raw()
    assert first[0x1, 0].registers == (0x306F2, 0x100800, 1, 2)
    assert first[0xB, 1].registers == (4, 8, 0x201, 0)


def test_what_kind_of_feature_it_is(framework: Framework) -> None:
    table = framework.catalogue("x86_64").table
    aspects = {
        name: X86CaptureRules().aspect(table[name])
        for name in ("avx2", "vmx", "rdctl-no", "vmx-ept", "vmx-vmfunc", "npt", "fb-clear", "svm")
    }
    assert aspects == {
        "avx2": "CPUID", "vmx": "CPUID", "rdctl-no": "MSR", "vmx-ept": "nested",
        "vmx-vmfunc": "nested", "npt": "nested", "fb-clear": "MSR", "svm": "CPUID",
    }  # fmt: skip
