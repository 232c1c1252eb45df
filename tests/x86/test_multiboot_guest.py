"""A Multiboot image as kvm-unit-tests makes them: environ module, fw_cfg, exit through 0xf4."""

from __future__ import annotations

from pathlib import Path

import pytest
from facility_guests import Report
from guest_compiler import checks_of, image_of
from guest_programs import cpufw

from cpufw.core.board import Outcome

pytestmark = pytest.mark.kvm


def test_as_kvm_unit_tests_run(tmp_path: Path) -> None:
    environment = tmp_path / "environ"
    environment.write_text("NR_CPUS=3\nTEST_HOST=yes\n")
    arguments = ("--smp", "3", "--memory", "32M", "--initrd", environment)
    done = cpufw(
        *("run", "--cpu", "Haswell", "--timeout", "60", *arguments),
        *("--append", "smp one=1", "--kernel", image_of("multiboot")),
    )
    report = Report(done.stdout, Outcome("exit", done.returncode, done.stderr))
    for check in checks_of("multiboot"):
        report.require(check)
    assert "smp one=1\n" in done.stdout
    assert "environment: NR_CPUS=3 TEST_HOST=yes \n" in done.stdout
    assert done.returncode == 1  # (0 << 1) | 1
