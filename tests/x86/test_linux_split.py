"""Linux on a machine whose I/O APIC is cpufw's own, without PICs and without a PIT."""

from __future__ import annotations

import pytest
from linux_guest import LinuxGuest

from cpufw.core.hotplug import HotplugEventKind
from cpufw.framework import Framework

pytestmark = pytest.mark.ordinary_kvm  # a boot more would take another fifteen seconds elsewhere


def test_linux_on_a_split_irqchip(framework: Framework) -> None:
    smp = "1,maxcpus=2"
    with LinuxGuest(framework, "Haswell-v4", smp, kernel_irqchip="split") as guest:
        guest.start()
        guest.plug(guest.machine.slots[1])
        assert guest.online() == "0-1"
        interrupts = guest.do("cat /proc/interrupts")
        assert "XT-PIC" not in interrupts
        # ACPI's interrupt is level-triggered: more than one means that its ends come through.
        acpi = next(line for line in interrupts.splitlines() if line.endswith("acpi")).split()
        assert acpi[0] == "9:"
        assert sum(map(int, acpi[1:3])) > 0
        assert guest.unplug(guest.machine.slots[1]) is HotplugEventKind.UNPLUGGED
