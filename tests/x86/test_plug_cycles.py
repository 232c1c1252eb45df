"""A thousand plugs and unplugs of one CPU: it is new each time, and nothing grows."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from facility_guests import EMULATED_HOST, Report
from guest_compiler import image_of

from cpufw.core.hotplug import SlotState
from cpufw.core.machine import Machine
from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

CYCLES = 100 if EMULATED_HOST else 1000
WARM_UP = CYCLES // 10
PATIENCE = 60.0


def footprint() -> tuple[int, int, int]:
    """Memory in KiB, threads, open files of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    memory, threads = status["VmRSS"].split()[0], status["Threads"]
    return int(memory), int(threads), len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def wait_for(machine: Machine, state: SlotState) -> None:
    deadline = time.monotonic() + PATIENCE
    while machine.slots[1].state is not state:
        assert time.monotonic() < deadline, f"slot 1 is {machine.slots[1].state.value}"
        time.sleep(0.0005)


def test_nothing_grows(framework: Framework) -> None:
    output = bytearray()
    with framework.machine(
        "pc",
        cpu="Haswell,check=off",
        smp="1,maxcpus=2",
        memory="64M",
        kernel=image_of("hotplug", f"rounds={CYCLES}"),
        serial=output.extend,
    ) as machine:
        place = {
            name.replace("-", "_"): value
            for name, value in machine.place_of(machine.slots[1]).items()
        }
        machine.start()
        for cycle in range(CYCLES):
            machine.device_add("Haswell-x86_64-cpu", id="more", **place)
            wait_for(machine, SlotState.ONLINE)
            machine.device_del("more")
            wait_for(machine, SlotState.EMPTY)
            if cycle == WARM_UP:
                before = footprint()
        after = footprint()
        outcome = machine.wait(PATIENCE)
    Report(output.decode(), outcome).require("plugged_and_ejected")
    # Threads of other tests may end meanwhile.
    assert all(then >= now for then, now in zip(before[1:], after[1:], strict=True))
    assert after[0] - before[0] < 1024
