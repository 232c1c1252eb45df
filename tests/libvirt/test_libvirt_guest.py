"""One guest from its definition to its end, as libvirt's users see it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from libvirt_host import LibvirtHost, counts, domain_xml, eventually

pytestmark = [pytest.mark.kvm, pytest.mark.libvirt]

NAME = "guest"


@dataclass
class Guest:
    """A domain that runs, its serial port in a file."""

    host: LibvirtHost
    serial: Path

    def ok(self, command: str, *words: str) -> str:
        return self.host.ok(command, NAME, *words)

    def counts(self) -> dict[str, int]:
        return counts(self.ok("vcpucount"))

    def printed(self) -> str:
        return self.serial.read_text(encoding="latin-1").replace("\r\n", "\n")

    def says(self, text: str, times: int = 1) -> None:
        eventually(lambda: self.printed().count(text) >= times, f"the guest says '{text}'")


@pytest.fixture(scope="module")
def definition(libvirt: LibvirtHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guest")
    serial = folder / "serial"
    xml = domain_xml(
        libvirt, NAME, devices=f"<serial type='file'><source path='{serial}'/></serial>"
    )
    (folder / "guest.xml").write_text(xml, encoding="utf-8")
    libvirt.ok("define", folder / "guest.xml")
    return serial


@pytest.fixture
def guest(libvirt: LibvirtHost, definition: Path) -> Iterator[Guest]:
    """The domain, started and ended with the test."""
    libvirt.ok("start", NAME)
    guest = Guest(libvirt, definition)
    guest.says("cpu 0: online")
    yield guest
    if libvirt.ok("domstate", NAME) != "shut off":
        libvirt.ok("destroy", NAME)
    definition.unlink(missing_ok=True)


def test_cpus_come_and_go(guest: Guest) -> None:
    expected = {"maximum config": 4, "maximum live": 4, "current config": 1, "current live": 1}
    assert guest.counts() == expected
    guest.ok("setvcpus", "3", "--live")
    assert guest.counts() == {**expected, "current live": 3}
    guest.says("cpu 1: online")
    guest.says("cpu 2: online")
    guest.ok("setvcpus", "1", "--live")
    assert guest.counts() == expected
    assert "cpu 1: offline" in guest.printed()
    assert "cpu 2: offline" in guest.printed()


def test_one_cpu_by_its_number(guest: Guest) -> None:
    guest.ok("setvcpu", "3", "--enable", "--live")
    guest.says("cpu 3: online")
    info = guest.ok("vcpuinfo")
    assert [line.split()[1] for line in info.splitlines() if line.startswith("VCPU:")] == ["0", "3"]
    guest.ok("setvcpu", "3", "--disable", "--live")
    guest.says("cpu 3: offline")
    assert guest.counts()["current live"] == 1


def test_cpus_are_threads_that_can_be_pinned(guest: Guest) -> None:
    guest.ok("setvcpus", "2", "--live")
    pid = guest.host.guest_pid(NAME)
    threads = {
        (task / "comm").read_text(encoding="ascii").strip(): int(task.name)
        for task in Path(f"/proc/{pid}/task").iterdir()
    }
    assert {"CPU 0/KVM", "CPU 1/KVM"} <= threads.keys()
    last = max(os.sched_getaffinity(0))
    guest.ok("vcpupin", "1", str(last), "--live")
    assert os.sched_getaffinity(threads["CPU 1/KVM"]) == {last}
    shown = [line.split() for line in guest.ok("vcpupin").splitlines()]
    assert ["1", str(last)] in shown


def test_a_guest_is_held_and_goes_on(guest: Guest) -> None:
    guest.ok("suspend")
    assert guest.ok("domstate", "--reason") == "paused (user)"
    guest.ok("resume")
    assert guest.ok("domstate", "--reason") == "running (unpaused)"


def test_a_reset_begins_again_with_the_cpus_that_are_there(guest: Guest) -> None:
    guest.ok("setvcpus", "2", "--live")
    guest.says("cpu 1: online")
    guest.ok("reset")
    guest.says("cpu 0: vendor", times=2)
    guest.says("cpu 1: online", times=2)
    assert guest.counts()["current live"] == 2


def test_a_guest_is_asked_to_shut_down(guest: Guest) -> None:
    guest.ok("shutdown")
    eventually(lambda: guest.ok("domstate") == "shut off", "shutdown")
    assert guest.ok("domstate", "--reason") == "shut off (shutdown)"
    assert "power button: off" in guest.printed()


def test_a_reboot_keeps_the_process(guest: Guest) -> None:
    pid = guest.host.guest_pid(NAME)
    guest.ok("reboot")
    guest.says("power button: off")
    guest.says("cpu 0: online", times=2)
    eventually(lambda: guest.ok("domstate") == "running", "the guest runs again")
    assert guest.host.guest_pid(NAME) == pid


def test_destroy_ends_the_process(guest: Guest) -> None:
    pid = guest.host.guest_pid(NAME)
    guest.ok("destroy")
    assert guest.ok("domstate", "--reason") == "shut off (destroyed)"
    assert not Path(f"/proc/{pid}").exists()


def test_figures_of_a_running_guest(guest: Guest) -> None:
    guest.ok("setvcpus", "2", "--live")
    pairs = (line.strip().partition("=") for line in guest.ok("domstats").splitlines())
    figures = {name: value for name, _, value in pairs}
    assert figures["vcpu.current"] == "2"
    assert figures["vcpu.maximum"] == "4"
    assert int(figures["vcpu.0.time"]) > 0


def test_a_daemon_that_is_restarted_finds_its_guest(guest: Guest) -> None:
    guest.ok("setvcpus", "3", "--live")
    guest.says("cpu 2: online")
    pid = guest.host.guest_pid(NAME)
    guest.host.stop_libvirtd()
    guest.host.start_libvirtd()
    eventually(lambda: guest.ok("domstate") == "running", "the guest is found")
    assert guest.host.guest_pid(NAME) == pid
    assert guest.counts()["current live"] == 3
    guest.ok("setvcpus", "1", "--live")
    assert guest.counts()["current live"] == 1


def test_libvirts_command_line_needs_no_adapting(guest: Guest) -> None:
    log = guest.host.guest_log(NAME)
    assert "-chardev socket,id=charmonitor,fd=" in log
    assert "isa-serial" in log
    errors = [line for line in log.splitlines() if "cpufw-system-x86_64: " in line]
    assert all(": warning: " in line for line in errors), errors


def test_a_cpu_that_is_not_there_cannot_be_taken(guest: Guest) -> None:
    answer = guest.host.virsh("setvcpu", NAME, "2", "--disable", "--live")
    assert answer.status == 1
    answer = guest.host.virsh("setvcpus", NAME, "5", "--live")
    assert answer.status == 1
    assert "greater than max" in answer.error
    assert guest.counts()["current live"] == 1
