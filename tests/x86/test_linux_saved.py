"""An unmodified Linux, saved, loaded and moved: it goes on, and CPUs still come and go."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from linux_guest import LinuxGuest

from cpufw.core.hotplug import HotplugEventKind, SlotState
from cpufw.core.machine import Machine
from cpufw.framework import Framework
from cpufw.snapshot.channel import Address, Listener
from cpufw.snapshot.migration import Limits, Migration

pytestmark = pytest.mark.kvm


def taken_over(guest: LinuxGuest, machine: Machine) -> None:
    """Let `guest` talk to `machine`, in which its Linux goes on."""
    guest.machine.close()
    guest.machine = machine


def counted(guest: LinuxGuest) -> list[int]:
    return [int(number) for number in re.findall(r"^count (\d+)$", guest.text, re.MULTILINE)]


def uptime(guest: LinuxGuest) -> float:
    return float(guest.read("/proc/uptime").split()[0])


def hot_plug_works(guest: LinuxGuest) -> None:
    """The CPU that was plugged before is there and leaves; others come and go."""
    slots = guest.machine.slots
    assert slots[1].state is SlotState.ONLINE
    assert guest.online() == "0-1"
    for number in range(2):
        assert f"runs on {number}" in guest.do(f"run-on {number}")
    assert guest.unplug(slots[1]) is HotplugEventKind.UNPLUGGED
    assert guest.online() == "0"
    guest.plug(slots[1])
    assert "runs on 1" in guest.do("run-on 1")


def test_saved_and_moved(framework: Framework, tmp_path: Path) -> None:
    smp = "1,maxcpus=2,sockets=1,cores=2"
    with LinuxGuest(framework, "Haswell-v4", smp) as guest:
        guest.start()
        guest.plug(guest.machine.slots[1])
        before = uptime(guest)

        # A process that prints goes on in another machine, nothing missing and nothing twice.
        guest.send("count")
        guest.expect(r"^count 2$")
        guest.machine.pause()
        guest.machine.save(tmp_path / "linux.snap")
        machine = framework.load_machine(tmp_path / "linux.snap", serial=guest._hear)
        taken_over(guest, machine)
        machine.start()
        guest.expect(rf"^count {counted(guest)[-1] + 3}$")
        guest.do("")
        assert counted(guest) == list(range(counted(guest)[0], counted(guest)[-1] + 1))
        hot_plug_works(guest)
        assert before < uptime(guest) < before + 300  # the clock did not jump

        address = Address(path=str(tmp_path / "s"))
        arrived: list[Any] = []
        with Listener(address) as listener:

            def receive() -> None:
                with listener.accept(patience=60) as channel:
                    arrived.append(framework.receive_machine(channel, serial=guest._hear))

            thread = threading.Thread(target=receive)
            thread.start()
            report = Migration(guest.machine, address, Limits(downtime=0.5)).run()
            thread.join(60)
        taken_over(guest, arrived[0])
        assert report.downtime < 5
        hot_plug_works(guest)
        assert before < uptime(guest) < before + 300
