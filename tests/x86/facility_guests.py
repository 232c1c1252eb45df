"""Guests in C, one a facility of the machine: how they are run and read.

Their `CHECK(name)`s print `ok name`, `not ok name why` or `skip name why` on COM1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cpufw.core.board import Outcome
from cpufw.framework import Framework

HOST = frozenset(Path("/proc/cpuinfo").read_text().split())
ORDINARY_HOST = bool({"vmx", "svm"} & HOST)
EMULATED_HOST = {"QEMU", "TCG"} <= HOST
"""This host's own CPU is emulated: slow, and not in everything as its manual says."""


@dataclass
class Report:
    """What a guest said and how its run ended."""

    text: str
    outcome: Outcome
    verdicts: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By check: `ok`, `not ok` or `skip`, and why."""

    def __post_init__(self) -> None:
        for line in self.text.splitlines():
            if found := re.fullmatch(r"(ok|not ok|skip) (\w+) ?(.*)", line):
                self.verdicts[found[2]] = found[1], found[3]

    def require(self, check: str) -> None:
        """Fail or skip the running test as the guest's check did."""
        verdict, why = self.verdicts.get(check, ("", ""))
        if verdict == "skip":
            pytest.skip(why)
        if verdict != "ok":
            told = why or f"the guest did not come so far: {self.outcome.message}\n{self.text}"
            pytest.fail(f"{check}: {told}", pytrace=False)


def run_guest(
    framework: Framework,
    image: Path,
    *,
    cpu: str = "Haswell",
    smp: str = "1",
    memory: str = "64M",
    timeout: float = 60,
    **options: object,
) -> Report:
    """Run a guest to its end."""
    output = bytearray()
    with framework.machine(
        "pc",
        cpu=cpu,
        smp=smp,
        accel="kvm",
        memory=memory,
        kernel=image,
        serial=output.extend,
        **options,
    ) as machine:
        machine.start()
        outcome = machine.wait(timeout)
        machine.stop()
        if outcome.reason == "timeout":
            outcome = Outcome("timeout", outcome.status, machine.describe())
    return Report(output.decode("latin-1"), outcome)
