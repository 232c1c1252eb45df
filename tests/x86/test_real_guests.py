"""Guests of others' making as Debian ships them: memtest86+ and the stock cloud kernel."""

from __future__ import annotations

import re

import pytest
from linux_guest import LinuxGuest, guest_file

from cpufw.core.hotplug import HotplugEventKind
from cpufw.framework import Framework

pytestmark = pytest.mark.kvm


class SerialGuest(LinuxGuest):
    """A guest without the tests' own first process."""

    def shell(self, command: str) -> str:
        """What a shell on the console prints for `command`."""
        mark = len(self.text)
        self.send(f"{command}; echo do''ne")
        end = self.expect(r"^done\n", mark)  # the whole line, or its end comes before the next echo
        first, _, rest = self.text[mark : end.start()].partition("\n")
        assert command.split()[0] in first
        return rest.strip()


def test_memtest_sees_the_model_and_all_cpus(framework: Framework) -> None:
    with SerialGuest(
        framework,
        "Haswell",
        "2",
        kernel=guest_file("memtest.bin"),
        initrd=None,
        append="console=ttyS0,115200",
        memory="32M",
    ) as guest:
        guest.machine.start()
        # The screen is drawn in pieces, each behind an escape sequence that says where.
        for piece in ("Memtest86\\+ v6", r"Intel Core Processor \(Haswell\)", "2 Cores 2 Threads"):
            guest.expect(piece)
        guest.expect(r"Testing: ")
        assert re.search(r"SMP: 2T", guest.text)


@pytest.mark.ordinary_kvm  # minutes without VMX and SVM; see the test below
def test_the_cloud_kernel_runs_a_shell_and_takes_cpus(framework: Framework) -> None:
    with SerialGuest(
        framework,
        "EPYC-v4,-xsaves",
        "1,maxcpus=3",
        kernel=guest_file("cloud-bzImage"),
        initrd=str(guest_file("busybox.cpio")),
        append="console=ttyS0 loglevel=1 mitigations=off tsc=reliable no_timer_check",
        protocol="vmlinux",
        memory="256M",
    ) as guest:
        guest.machine.start()
        guest.expect(r"^ready: 6\.1\.0-\d+-cloud-amd64, cpus 0$")
        assert "EPYC" in guest.shell("grep 'model name' /proc/cpuinfo")
        slot = guest.machine.slots[1]
        ids = {name.replace("-", "_"): value for name, value in slot.id.props().items()}
        for _ in range(3):
            guest.machine.device_add(guest.machine.cpu_class.type_name, id="cpu1", **ids)
            online = "/sys/devices/system/cpu/cpu1/online"
            guest.shell(f"until [ -e {online} ]; do sleep 0.1; done; echo 1 > {online}")
            assert guest.shell("cat /sys/devices/system/cpu/online") == "0-1"
            assert guest.unplug(slot) is HotplugEventKind.UNPLUGGED
            assert guest.shell("cat /sys/devices/system/cpu/online") == "0"
        guest.send("poweroff -f")
        assert guest.machine.wait(60).reason == "power-off"


def test_the_cloud_kernel_begins_anywhere(framework: Framework) -> None:
    """Without VMX and SVM it is not at its first process after minutes: how it begins is enough."""
    with SerialGuest(
        framework,
        "Haswell-v4",
        "1",
        kernel=guest_file("cloud-bzImage"),
        initrd=None,
        append="earlyprintk=serial,ttyS0 nokaslr mitigations=off",
        protocol="vmlinux",
        memory="128M",
    ) as guest:
        guest.machine.start()
        guest.expect(r"Linux version 6\.1\.0-\d+-cloud-amd64")
        guest.expect(r"BIOS-e820: \[mem 0x0000000000100000-0x[0-9a-f]+\] usable")
        guest.expect(r"smpboot: Allowing 1 CPUs|ACPI: RSDP")
