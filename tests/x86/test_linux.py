"""An unmodified Linux 6.1 under cpufw: its CPUs are the model's, come and go, and it can be reset.

On hosts without VMX and SVM a boot takes some fifteen seconds, so one guest serves many tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from linux_guest import COMMAND_LINE, LinuxGuest, guest_file

from cpufw.core.hotplug import HotplugEventKind, SlotState
from cpufw.errors import HotplugError
from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

CYCLES = 10

# Where QEMU emulates the host, CPUID leaf 0xD does not follow XCR0, and Linux then does without.
EXTENDED_STATE = () if "QEMU TCG CPU" in Path("/proc/cpuinfo").read_text() else ("xsave", "avx")


@pytest.fixture(scope="module")
def guest(framework: Framework) -> Iterator[LinuxGuest]:
    """Two CPUs of four, Haswell-v4."""
    with LinuxGuest(framework, "Haswell-v4", "2,maxcpus=4,sockets=1,cores=4") as linux:
        yield linux.start()


def cpuinfo(guest: LinuxGuest) -> list[dict[str, str]]:
    """One dictionary a CPU."""
    text = guest.do("cat /proc/cpuinfo").strip()
    blocks = (block.splitlines() for block in text.split("\n\n"))
    return [
        {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block)}
        for block in blocks
    ]


def test_command_line_is_the_one_given(guest: LinuxGuest) -> None:
    assert guest.read("/proc/cmdline") == COMMAND_LINE


def test_cpuinfo_shows_the_model(guest: LinuxGuest) -> None:
    cpus = cpuinfo(guest)
    assert len(cpus) == 2
    for number, cpu in enumerate(cpus):
        assert cpu["processor"] == cpu["apicid"] == str(number)
        assert cpu["vendor_id"] == "GenuineIntel"
        assert cpu["model name"] == "Intel Core Processor (Haswell, no TSX, IBRS)"
        assert (cpu["cpu family"], cpu["model"], cpu["stepping"]) == ("6", "60", "1")


def test_cpuinfo_shows_the_features_that_were_granted(guest: LinuxGuest) -> None:
    """By the names that both use; the report names those that this host did not grant."""
    cpu = guest.machine.cpus()[0]
    shown = set(cpuinfo(guest)[0]["flags"].split())
    unavailable = set(cpu.unavailable)
    for name in ("fpu", "sse2", "ssse3", "popcnt", "aes", "x2apic", "nx", *EXTENDED_STATE):
        assert (name in shown) == (name in set(cpu.granted) | set(cpu.extra)), name
    for name in unavailable:
        assert any(f"{name} (" in said for said in cpu.warnings), name


def test_every_cpu_runs_programs(guest: LinuxGuest) -> None:
    assert guest.online() == "0-1"
    for number in (0, 1):
        assert f"runs on {number}" in guest.do(f"run-on {number}")


def test_a_cpu_comes_and_goes_ten_times(guest: LinuxGuest) -> None:
    slot = guest.machine.slots[2]
    for _ in range(CYCLES):
        guest.plug(slot)
        assert guest.online() == "0-2"
        assert slot.state is SlotState.ONLINE
        assert "runs on 2" in guest.do("run-on 2")
        assert guest.unplug(slot) is HotplugEventKind.UNPLUGGED
        assert guest.online() == "0-1"
        assert slot.state is SlotState.EMPTY


def test_a_cpu_comes_with_its_own_place(guest: LinuxGuest) -> None:
    slot = guest.machine.slots[3]
    guest.plug(slot)
    try:
        assert guest.online() == "0-1,3" or guest.online() == "0-2"
        assert cpuinfo(guest)[-1]["apicid"] == str(slot.arch_id)
    finally:
        assert guest.unplug(slot) is HotplugEventKind.UNPLUGGED


def test_the_boot_cpu_stays(guest: LinuxGuest) -> None:
    with pytest.raises(HotplugError, match="boot CPU"):
        guest.machine.request_unplug(guest.machine.slots[0])
    assert guest.online() == "0-1"


def test_a_guest_that_will_not_let_go_refuses(guest: LinuxGuest) -> None:
    """Linux is told not to eject processors, and then that it may."""
    slot, may_eject = guest.machine.slots[2], "/sys/firmware/acpi/hotplug/processor/enabled"
    guest.plug(slot)
    guest.do(f"write {may_eject} 0")
    for _ in range(2):
        assert guest.unplug(slot) is HotplugEventKind.UNPLUG_REFUSED
        assert slot.state is SlotState.ONLINE
        assert guest.online() == "0-2"
        assert "runs on 2" in guest.do("run-on 2")
    guest.do(f"write {may_eject} 1")
    assert guest.unplug(slot) is HotplugEventKind.UNPLUGGED
    assert guest.online() == "0-1"


def test_nmi_reaches_the_guest(guest: LinuxGuest) -> None:
    def nmis() -> list[int]:
        (line,) = re.findall(r"^ *NMI: +([\d ]+) ", guest.do("cat /proc/interrupts"), re.MULTILINE)
        return [int(number) for number in line.split()]

    before = nmis()
    guest.machine.nmi()
    guest.do("sleep 100")  # an idle CPU wakes for it when the host lets it
    assert [after > n for after, n in zip(nmis(), before, strict=True)] == [True, True]


def test_a_paused_guest_stands_still_and_goes_on(guest: LinuxGuest) -> None:
    guest.send("count")
    guest.expect(r"^count 3$", len(guest.text) - 200 if len(guest.text) > 200 else 0)
    guest.machine.pause()
    assert guest.machine.status == "paused"
    guest.machine.wait(0.3)  # what was on its way arrives
    mark = len(guest.text)
    guest.machine.wait(0.6)
    assert guest.text[mark:] == ""
    guest.machine.resume()
    guest.expect(r"^count \d+$", mark)
    counted = [int(n) for n in re.findall(r"^count (\d+)$", guest.text, re.MULTILINE)]
    assert counted == sorted(counted)
    guest.do("")


def test_reboot_and_power_off(guest: LinuxGuest) -> None:
    """The last of this guest: with a CPU plugged, which is there after the reset from the start."""
    guest.plug(guest.machine.slots[2])
    mark = len(guest.text)
    guest.send("reboot")
    guest.expect(r"^ready$", mark)
    assert guest.online() == "0-2"
    assert guest.unplug(guest.machine.slots[2]) is HotplugEventKind.UNPLUGGED
    guest.send("poweroff")
    assert guest.machine.wait(60).reason == "power-off"


@pytest.mark.parametrize("smp", ["1", "4"])
def test_other_numbers_of_cpus(framework: Framework, smp: str) -> None:
    """With the power button at the end, which this kernel turns into an input event."""
    with LinuxGuest(framework, "qemu64" if smp == "1" else "EPYC-v4", smp) as linux:
        linux.start()
        assert linux.online() == ("0" if smp == "1" else f"0-{int(smp) - 1}")
        assert len(cpuinfo(linux)) == int(smp)
        linux.send("poweroff")
        assert linux.machine.wait(60).reason == "power-off"


@pytest.mark.ordinary_kvm  # it unpacks itself in ring 0: minutes without VMX and SVM
def test_bzimage_boots_too(framework: Framework) -> None:
    with LinuxGuest(framework, "Haswell-v4", "1", kernel=guest_file("bzImage")) as linux:
        linux.start()
        assert "6.1" in linux.read("/proc/sys/kernel/osrelease")
        linux.send("poweroff")
        assert linux.machine.wait(60).reason == "power-off"
