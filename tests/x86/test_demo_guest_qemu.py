"""The demo guest under QEMU's own q35 machine: a cross-check of the guest with no cpufw in it."""

from __future__ import annotations

import itertools
import json
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

QEMU = shutil.which("qemu-system-x86_64")
IMAGE = Path(__file__).resolve().parents[2] / "plugins/x86/guest/demo.bin"
CPU_MODEL = "Haswell"
WAIT = 20.0  # seconds; the steps below take milliseconds on an idle machine

pytestmark = pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")


class Guest:
    """A running QEMU: the guest's console lines and a QMP connection."""

    def __init__(self, process: subprocess.Popen[str], console: Path) -> None:
        self.process, self.console = process, console
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()
        self._next_reply()  # the greeting
        self.command("qmp_capabilities")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.messages.put(json.loads(line))

    def _next_reply(self) -> dict[str, Any]:
        while "event" in (message := self.messages.get(timeout=WAIT)):
            self.events.append(message)
        return message

    def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        return self._next_reply()

    def lines(self) -> list[str]:
        return self.console.read_text().splitlines()

    def wait_for(self, what: str, found: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT
        while not found():
            while not self.messages.empty():
                self.events.append(self.messages.get())
            assert time.monotonic() < deadline, f"no {what}; console: {self.lines()[-5:]}"
            time.sleep(0.005)

    def wait_for_line(self, line: str, times: int = 1) -> None:
        self.wait_for(line, lambda: self.lines().count(line) >= times)

    def ost(self) -> list[tuple[int, int]]:
        """Source event and status of every _OST so far."""
        infos = [e["data"]["info"] for e in self.events if e["event"] == "ACPI_DEVICE_OST"]
        return [(info["source"], info["status"]) for info in infos]

    def wait_for_ost(self, count: int) -> list[tuple[int, int]]:
        self.wait_for(f"{count} _OST reports", lambda: len(self.ost()) >= count)
        return self.ost()

    def plug(self, name: str, **place: int) -> None:
        reply = self.command("device_add", driver=f"{CPU_MODEL}-x86_64-cpu", id=name, **place)
        assert "return" in reply, reply


@contextmanager
def run_guest(
    tmp_path: Path,
    smp: str = "1,maxcpus=4",
    cpu: str = CPU_MODEL,
    options: tuple[str, ...] = (),
) -> Iterator[Guest]:
    assert QEMU is not None
    console = tmp_path / "console"
    console.touch()
    argv = [QEMU, "-machine", "q35", "-accel", "tcg", "-cpu", cpu, "-smp", smp]
    argv += ["-m", "4", "-nodefaults", "-display", "none", "-no-reboot"]
    argv += ["-kernel", str(IMAGE), "-serial", f"file:{console}", "-qmp", "stdio"]
    argv += options
    with (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        yield Guest(process, console)
    finally:
        process.kill()
        process.communicate()


def facts(lines: list[str], cpu: int) -> list[str]:
    prefix = f"cpu {cpu}: "
    return [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]


def test_each_boot_cpu_reports_itself_in_one_block(tmp_path: Path) -> None:
    with run_guest(tmp_path, "3") as guest:
        guest.wait_for_line("cpu 2: online")
        lines = guest.lines()
    assert facts(lines, 0)[:3] == [
        "vendor GenuineIntel",
        "family 6 model 60 stepping 4",
        "brand Intel Core Processor (Haswell)",
    ]
    assert facts(lines, 0)[-1] == "online"
    blocks = [next(group) for _, group in itertools.groupby(lines, key=lambda s: s.split(":")[0])]
    assert len(blocks) == 3, "the lines of two CPUs mixed"
    assert [len(facts(lines, cpu)) for cpu in range(3)] == [len(facts(lines, 0))] * 3


def test_words_are_those_of_the_model(tmp_path: Path) -> None:
    features = {  # CPUID words set by hand from the SDM's bit positions
        "Haswell,+rdrand,-avx": {"1.ECX": (1 << 30, 1 << 28)},
        "Haswell,+adx,-smep": {"7.0.EBX": (1 << 19, 1 << 7)},
    }
    for cpu, expected in features.items():
        with run_guest(tmp_path, "1", cpu=cpu) as guest:
            guest.wait_for_line("cpu 0: online")
            words = dict(
                fact.split()[1:] for fact in facts(guest.lines(), 0) if fact.startswith("word")
            )
        for name, (present, absent) in expected.items():
            assert int(words[name], 16) & present
            assert not int(words[name], 16) & absent


def test_leaves_beyond_the_maximum_are_not_printed(tmp_path: Path) -> None:
    with run_guest(tmp_path, "1", cpu="qemu64,level=6,xlevel=0x80000001,-svm") as guest:
        guest.wait_for_line("cpu 0: online")
        named = [fact.split()[1] for fact in facts(guest.lines(), 0) if fact.startswith("word")]
        assert not any(fact.startswith("brand") for fact in facts(guest.lines(), 0))
    assert named == ["1.ECX", "1.EDX", "6.EAX", "40000001.EAX", "80000001.ECX", "80000001.EDX"]


def test_svm_word_is_printed_only_with_svm(tmp_path: Path) -> None:
    for cpu, count in {"EPYC": 1, "EPYC,-svm": 0}.items():
        with run_guest(tmp_path, "1", cpu=cpu) as guest:
            guest.wait_for_line("cpu 0: online")
            names = [fact.split()[1] for fact in facts(guest.lines(), 0) if "word" in fact]
        assert names.count("8000000A.EDX") == count


def test_plug_unplug_power_off(tmp_path: Path) -> None:
    with run_guest(tmp_path, "1,maxcpus=4,sockets=2,cores=2,threads=1") as guest:
        guest.wait_for_line("cpu 0: online")
        for number, (socket, core) in enumerate([(1, 0), (0, 1), (1, 1)], 1):
            guest.plug(f"late{number}", **{"socket-id": socket, "core-id": core, "thread-id": 0})
            assert guest.wait_for_ost(number) == [(1, 0)] * number
        came = [line for line in guest.lines() if line.endswith("online")]
        assert came == [f"cpu {apic_id}: online" for apic_id in (0, 2, 1, 3)]
        # QEMU 7.2 corrupts its heap when a CPU is plugged after an unplug, so those come last.
        for number in (3, 1):
            guest.command("device_del", id=f"late{number}")
            guest.wait_for_ost(5 if number == 3 else 7)
        assert guest.ost()[3:] == [(3, 0x84), (3, 0)] * 2
        assert guest.lines()[-2:] == ["cpu 3: offline", "cpu 2: offline"]
        assert len(guest.command("query-cpus-fast")["return"]) == 2
        guest.command("system_powerdown")
        assert guest.process.wait(WAIT) == 0
        assert guest.lines()[-1] == "power button: off"


def test_cpu_plugged_before_the_guest_looks_is_started_once(tmp_path: Path) -> None:
    with run_guest(tmp_path, options=("-S",)) as guest:
        guest.plug("early", **{"socket-id": 0, "core-id": 1, "thread-id": 0})
        guest.command("cont")
        guest.wait_for_line("cpu 1: online")
        guest.command("system_powerdown")
        guest.process.wait(WAIT)
        assert [line for line in guest.lines() if "online" in line] == [
            "cpu 0: online",
            "cpu 1: online",
        ]


def test_sixty_six_cpus_with_sparse_apic_ids(tmp_path: Path) -> None:
    with run_guest(tmp_path, "66,sockets=11,cores=3,threads=2") as guest:
        ids = [socket * 8 + core * 2 + thread
               for socket in range(11) for core in range(3) for thread in range(2)]  # fmt: skip
        guest.wait_for_line(f"cpu {ids[-1]}: online")
        online = [line for line in guest.lines() if line.endswith(": online")]
    assert online == [f"cpu {apic_id}: online" for apic_id in ids]
