"""A Linux guest that a test talks to: tests/guests/init.c is its first process."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

import pytest
from facility_guests import ORDINARY_HOST

from cpufw.core.hotplug import HotplugEventKind, Slot
from cpufw.framework import Framework

PATIENCE = 120.0  # seconds for one step; without VMX and SVM a boot takes 15 s on a quiet machine

# What makes ring 0 instructions of the kernel's choosing fewer on a host that has to emulate them;
# `loglevel=1` because each character printed is two exits.
COMMAND_LINE = "console=ttyS0 loglevel=1 nokaslr panic=-1 mitigations=off rodata=off"

INTERRUPTS_ON, RUNNABLE = 1 << 9, 0  # in RFLAGS; an MP state of KVM's
LOOP_BYTES = 64  # more than a loop has that only waits

_LOG = re.compile(r"\[ *\d+\.\d{6}\] ")  # how the kernel's own lines begin


def guest_file(name: str) -> Path:
    """A file that `make guests` built; skips the test where there is none."""
    folder = os.environ.get("CPUFW_GUESTS")
    if not folder:
        pytest.skip("the guests nobody here wrote are not built: make guests")
    path = Path(folder) / name
    assert path.is_file(), f"{path} is missing: make guests"
    return path


class LinuxGuest:
    """A running guest, its console and its machine; `with` stops it."""

    def __init__(self, framework: Framework, cpu: str, smp: str, **options: Any) -> None:
        self.text = ""
        self._news = threading.Condition()
        settings = {
            "kernel": guest_file("vmlinux"),
            "initrd": str(guest_file("init.cpio")),
            "append": COMMAND_LINE,
            "memory": "64M",
            **options,
        }
        self.machine = framework.machine("pc", cpu=cpu, smp=smp, serial=self._hear, **settings)

    def _hear(self, data: bytes) -> None:
        with self._news:
            self.text += data.decode("latin-1").replace("\r", "")
            self._news.notify_all()

    def start(self) -> LinuxGuest:
        """Boot, until /init is ready for commands."""
        self.machine.start()
        self.expect(r"^ready$")
        return self

    def expect(self, pattern: str, since: int = 0) -> re.Match[str]:
        """Wait for a line of the console after position `since`."""
        wanted = re.compile(pattern, re.MULTILINE)
        deadline = monotonic() + PATIENCE
        while True:
            with self._news:
                found = wanted.search(self.text, since)
                if found:
                    return found
            left = deadline - monotonic()
            outcome = self.machine.wait(min(0.2, max(left, 0.01)))
            if outcome.reason != "timeout" or left <= 0:
                with self._news:
                    found = wanted.search(self.text, since)
                if found:
                    return found
                self.machine.stop()
                raise AssertionError(
                    f"no line {pattern!r} ({outcome.reason} {outcome.message}); the console:\n"
                    f"{self.text}\n{self.machine.describe()}"
                )

    def do(self, command: str) -> str:
        """What /init says to a command, without its last line; fails unless that is `ok`."""
        mark = len(self.text)
        self.send(command)
        end = self.expect(r"^(ok|error \d+)\n", mark)
        assert end[1] == "ok", f"{command}: {end[1]}\n{self.text[mark:]}"
        said = self.text[mark : end.start()]
        return "\n".join(
            line for line in said.splitlines() if line != command and not _LOG.match(line)
        )

    def send(self, command: str) -> None:
        """Type a command without waiting for what comes of it."""
        self.machine.board.type_text(f"{command}\n".encode())  # type: ignore[attr-defined]

    def read(self, path: str) -> str:
        """A file of the guest, stripped."""
        return self.do(f"cat {path}").strip()

    def online(self) -> str:
        """The guest's CPUs, as Linux lists them: `0-1`."""
        return self.read("/sys/devices/system/cpu/online")

    def plug(self, slot: Slot) -> None:
        """`device_add` a CPU, and wait until Linux runs it."""
        mark = len(self.text)
        ids = {name.replace("-", "_"): value for name, value in slot.id.props().items()}
        type_name = self.machine.cpu_class.type_name
        self.machine.device_add(type_name, id=f"cpu{slot.index}", **ids)
        self.expect(r"^onlined cpu \d+$", mark)

    def unplug(self, slot: Slot) -> HotplugEventKind:
        """`device_del`, and the guest's answer to it."""
        since = self.machine.log.seq
        self.machine.request_unplug(slot)  # as device_del, also for CPUs that were there at boot
        answers = (HotplugEventKind.UNPLUGGED, HotplugEventKind.UNPLUG_REFUSED)
        deadline = monotonic() + PATIENCE
        while monotonic() < deadline:
            for event in self.machine.events(since, timeout=0.2):
                since = event.seq
                if event.kind in answers and event.slot == slot.index:
                    return event.kind
            self.machine.wait(0.01)
        self.skip_if_deadlocked()
        raise AssertionError(f"no answer to the request; the console:\n{self.text}")

    def skip_if_deadlocked(self) -> None:
        """Skip the test if it met what Linux 6.1 does in an unplug where interrupts come late."""
        places = self.standstill()
        if places and not ORDINARY_HOST:
            # rcu_report_dead waits, with ofl_lock held, for an interrupt that another
            # CPU has to take, which waits for ofl_lock with interrupts off. It would have taken
            # it earlier where a pending interrupt comes as soon as interrupts are on.
            pytest.skip(f"without VMX and SVM Linux took an interrupt too late: {places}")

    def standstill(self) -> str:
        """Where the CPUs spin, if all do for good, with interrupts off; else empty."""
        seen: dict[int, list[int]] = {}
        for _ in range(20):
            with self.machine.board.held():  # type: ignore[attr-defined]
                for cpu in self.machine.cpus():
                    vcpu = cpu.vcpu.vcpu  # type: ignore[attr-defined]
                    regs = vcpu.get_regs()
                    if regs.rflags & INTERRUPTS_ON or vcpu.get_mp_state() != RUNNABLE:
                        return ""
                    seen.setdefault(vcpu.id, []).append(regs.rip)
            self.machine.wait(0.05)
        if any(max(places) - min(places) > LOOP_BYTES for places in seen.values()):
            return ""
        return ", ".join(f"CPU {id} spins at {min(at):#x}" for id, at in seen.items())

    def __enter__(self) -> LinuxGuest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.machine.close()
