"""Linux reads the tables: it has nothing to complain of, and a plugged CPU is where they say."""

from __future__ import annotations

import re

import pytest
from linux_guest import COMMAND_LINE, LinuxGuest

from cpufw.core.hotplug import HotplugEventKind
from cpufw.framework import Framework

# Without VMX and SVM these boots take a minute; tests of the guest itself run there.
pytestmark = pytest.mark.ordinary_kvm

WARNINGS = COMMAND_LINE.replace("quiet", "loglevel=5")
NUMA = ("node,cpus=0-1,mem=48M", "node,cpus=2-3,mem=16M", "dist,src=0,dst=1,val=21")


@pytest.mark.parametrize("numa", [(), NUMA], ids=["flat", "numa"])
def test_linux_has_no_complaint_about_acpi(numa: tuple[str, ...]) -> None:
    smp = "1,maxcpus=4,sockets=2,cores=2"
    with LinuxGuest(Framework(), "EPYC", smp, append=WARNINGS, numa=numa).start() as guest:
        far = guest.machine.slots[2]
        guest.plug(far)
        assert guest.unplug(far) is HotplugEventKind.UNPLUGGED
        complaints = re.findall(
            r".*(?:ACPI|acpi|Firmware Bug|SRAT|SLIT).*(?:[Ee]rror|[Ww]arning|BUG|Bug|invalid).*",
            guest.text,
        )
        assert complaints == []
