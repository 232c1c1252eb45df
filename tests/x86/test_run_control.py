"""Pause, reset, crash policy, watchdog, pinning and memory: what a user does to a running guest."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from guest_programs import AT_ONCE, RESET_PORT, Program, cpufw

from cpufw.core.machine import Machine
from cpufw.errors import AcceleratorError, UsageError
from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

# mov dx, 0x3f8; mov al, '.'; out dx, al; mov ecx, 5000; dec ecx; jnz $-1; jmp to the mov al
BEATING = bytes.fromhex("66baf803 b02e ee b988130000 49 75fd ebf3")
STARTS = 0x20_0000  # a byte that a reset leaves alone: how often the guest has started


def counting_starts(then: Callable[[Program], Program]) -> Program:
    """Prints which start of the guest this is; `then` follows the first two."""
    program = Program()
    program.raw(b"\xfe\x05" + STARTS.to_bytes(4, "little"))  # inc byte [STARTS]
    program.raw(b"\xa0" + STARTS.to_bytes(4, "little") + b"\x04\x30")  # al = [STARTS] + '0'
    program.raw(b"\x66\xba\xf8\x03\xee")
    program.raw(b"\x3c\x33\x75\x05").raw(b"\xb0\x01\xe6\xf4\xf4")  # at '3': exit with 1
    return then(program)


class Running:
    """A guest in this process, and what it has said."""

    def __init__(self, framework: Framework, code: bytes, folder: Path, **options: Any) -> None:
        image = folder / "guest"
        image.write_bytes(code)
        self.said = bytearray()
        smp = options.pop("smp", "1")
        self.machine: Machine = framework.machine(
            "pc",
            cpu="qemu64",
            smp=smp,
            kernel=image,
            entry_mode="protected",
            serial=self.said.extend,
            **{"memory": "4M", **options},
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.close()

    def grows(self, seconds: float = 30.0) -> bool:
        """Whether it says something more."""
        before, deadline = len(self.said), monotonic() + seconds
        while len(self.said) == before and monotonic() < deadline:
            self.machine.wait(0.02)
        return len(self.said) > before


# --- pause and resume ---------------------------------------------------------------------


def test_a_paused_guest_says_nothing_and_then_goes_on(framework: Framework, tmp_path: Path) -> None:
    with Running(framework, BEATING, tmp_path) as guest:
        assert guest.machine.status == "prelaunch"
        guest.machine.start()
        assert guest.grows()
        for _ in range(5):
            guest.machine.pause()
            guest.machine.pause()  # once more changes nothing
            assert guest.machine.status == "paused"
            guest.grows(0.1)  # what was on its way arrives
            assert not guest.grows(0.2)
            guest.machine.resume()
            assert guest.machine.status == "running"
            assert guest.grows()


def test_the_guests_clock_stands_still_while_it_is_paused(
    framework: Framework, tmp_path: Path
) -> None:
    with Running(framework, BEATING, tmp_path) as guest:
        guest.machine.start()
        assert guest.grows()
        vm = guest.machine.board.vm  # type: ignore[attr-defined]
        guest.machine.pause()
        before = vm.get_clock().clock
        threading.Event().wait(0.5)
        guest.machine.resume()
        assert vm.get_clock().clock - before < 0.4e9


def test_a_cpu_plugged_while_paused_runs_after_it(framework: Framework, tmp_path: Path) -> None:
    with Running(framework, BEATING, tmp_path, smp="1,maxcpus=2") as guest:
        guest.machine.start()
        assert guest.grows()
        guest.machine.pause()
        place = {k.replace("-", "_"): v for k, v in guest.machine.slots[1].id.props().items()}
        guest.machine.device_add("qemu64-x86_64-cpu", id="c1", **place)
        guest.grows(0.1)
        assert not guest.grows(0.2)
        guest.machine.resume()
        assert guest.grows()


# --- reset --------------------------------------------------------------------------------


def test_a_guest_resets_the_machine_and_starts_again(tmp_path: Path) -> None:
    image = counting_starts(lambda p: p.outb(RESET_PORT, 6).halt()).write(tmp_path / "guest")
    done = cpufw("run", "--entry-mode", "protected", "--timeout", "60", image)
    assert (done.returncode, done.stdout) == (3, "123"), done.stderr


def test_no_reboot_ends_the_run(tmp_path: Path) -> None:
    image = counting_starts(lambda p: p.outb(RESET_PORT, 6).halt()).write(tmp_path / "guest")
    done = cpufw("run", "--entry-mode", "protected", "--no-reboot", image)
    assert (done.returncode, done.stdout) == (0, "1"), done.stderr


def test_reset_from_outside(framework: Framework, tmp_path: Path) -> None:
    code = counting_starts(lambda p: p.halt()).code
    with Running(framework, code, tmp_path) as guest:
        guest.machine.reset()
        assert guest.machine.status == "prelaunch"
        guest.machine.start()
        assert guest.grows()
        guest.machine.reset()
        assert guest.grows()
        guest.machine.pause()
        guest.machine.reset()  # the guest starts when it is resumed
        guest.machine.resume()
        outcome = guest.machine.wait(60)
        assert (bytes(guest.said), outcome.reason) == (b"123", "exit")


# --- a guest that crashes -----------------------------------------------------------------


def test_on_crash_reset_starts_it_again(tmp_path: Path) -> None:
    image = counting_starts(Program.triple_fault).write(tmp_path / "guest")
    options = ("--entry-mode", "protected", "--timeout", "60", "--on-crash", "reset")
    done = cpufw("run", *options, image)
    assert (done.returncode, done.stdout) == (3, "123"), done.stderr


def test_on_crash_pause_leaves_it_for_a_look(framework: Framework, tmp_path: Path) -> None:
    code = Program().say("last words").triple_fault().code
    with Running(framework, code, tmp_path, on_crash="pause") as guest:
        guest.machine.start()
        deadline = monotonic() + 30
        while guest.machine.status != "paused" and monotonic() < deadline:
            guest.machine.wait(0.05)
        assert guest.machine.status == "paused"
        assert bytes(guest.said) == b"last words"


@pytest.mark.parametrize("policy", ["report", "reset", "pause"])
def test_a_guest_that_says_it_panicked(policy: str, framework: Framework, tmp_path: Path) -> None:
    """Port 0x505 is where pvpanic's drivers look; bit 0 of what they read says they may panic."""
    panic = Program().wait_for(0x505, 1).outb(0x505, 1).halt().code
    code = counting_starts(lambda program: program.raw(panic)).code
    with Running(framework, code, tmp_path, on_crash=policy) as guest:
        guest.machine.start()
        if policy == "pause":
            deadline = monotonic() + 30
            while guest.machine.status != "guest-panicked" and monotonic() < deadline:
                guest.machine.wait(0.05)
            assert guest.machine.status == "guest-panicked"
            return
        outcome = guest.machine.wait(60)
        expected = {"report": (b"1", "panicked"), "reset": (b"123", "exit")}
        assert (bytes(guest.said), outcome.reason) == expected[policy]


def test_unknown_crash_policy_is_refused(framework: Framework, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="report, reset, pause"):
        Running(framework, BEATING, tmp_path, on_crash="panic")


# --- a thread that hangs ------------------------------------------------------------------


class Stuck:
    """A device whose writes never end."""

    ports = range(0x99, 0x9A)

    def __init__(self) -> None:
        self.release = threading.Event()

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        return 0

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        self.release.wait(60)


def test_watchdog_names_the_vcpu_and_where_it_is(framework: Framework, tmp_path: Path) -> None:
    code = Program().outb(0x99, 1).halt().code
    device = Stuck()
    with Running(framework, code, tmp_path, watchdog=0.2) as guest:
        guest.machine.board.chipset.ports.add(device)  # type: ignore[attr-defined]
        guest.machine.start()
        outcome = guest.machine.wait(30)
        device.release.set()
        assert outcome.reason == "died"
        assert "vCPU 0" in outcome.message
        assert "threading.py" in outcome.message or "write" in outcome.message


def test_watchdog_lets_a_guest_be_that_runs_or_halts(framework: Framework, tmp_path: Path) -> None:
    with Running(framework, BEATING, tmp_path, watchdog=0.1, smp="2") as guest:
        guest.machine.start()
        assert guest.machine.wait(0.8).reason == "timeout"


# --- where it runs, and in what memory ----------------------------------------------------


def test_vcpus_are_pinned(framework: Framework, tmp_path: Path) -> None:
    host_cpu = min(os.sched_getaffinity(0))
    with Running(framework, BEATING, tmp_path, smp="2", pin={1: frozenset({host_cpu})}) as guest:
        guest.machine.start()
        assert guest.grows()
        threads = guest.machine.board._threads  # type: ignore[attr-defined]
        assert os.sched_getaffinity(threads[1].native_id) == {host_cpu}
        assert os.sched_getaffinity(threads[0].native_id) == os.sched_getaffinity(0)
        guest.machine.board.pin(0, frozenset({host_cpu}))  # type: ignore[attr-defined]
        assert os.sched_getaffinity(threads[0].native_id) == {host_cpu}


@pytest.mark.parametrize(
    ("pin", "said"),
    [("0=4095", "may use"), ("7=0", "slots are 0 to 0"), ("0", "0=0-1,4"), ("0=a", "0=0-1,4")],
)
def test_bad_pins_are_refused(pin: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "guest").write_bytes(BEATING)
    done = cpufw("run", "--entry-mode", "protected", "--pin", pin, tmp_path / "guest")
    assert done.returncode == 2
    assert said in done.stderr


def test_shared_memory_can_be_seen_from_outside(framework: Framework, tmp_path: Path) -> None:
    with Running(framework, BEATING, tmp_path, memory_backend="memfd,share=on") as guest:
        guest.machine.start()
        assert guest.grows()
        _, memory = guest.machine.board.ram.blocks[0]  # type: ignore[attr-defined]
        assert os.pread(memory.fd, len(BEATING), 0x10_0000) == BEATING


@pytest.mark.parametrize("backend", ["memfd", "anonymous,prealloc=on", "memfd,prealloc=on"])
def test_other_memory_runs_too(backend: str, framework: Framework, tmp_path: Path) -> None:
    with Running(framework, BEATING, tmp_path, memory_backend=backend) as guest:
        guest.machine.start()
        assert guest.grows()


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("ramfs", "anonymous or memfd"),
        ("memfd,share=yes", "share=yes"),
        ("anonymous,hugetlb=on", "needs memfd"),
    ],
)
def test_bad_memory_backends_are_refused(
    backend: str, said: str, framework: Framework, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        Running(framework, BEATING, tmp_path, memory_backend=backend)


def test_huge_pages_are_used_or_missed_in_words(framework: Framework, tmp_path: Path) -> None:
    reserved = int(Path("/proc/sys/vm/nr_hugepages").read_text())
    if reserved < 2:
        with pytest.raises(AcceleratorError, match="nr_hugepages"):
            Running(framework, BEATING, tmp_path, memory_backend="memfd,hugetlb=on")
        return
    with Running(framework, BEATING, tmp_path, memory_backend="memfd,hugetlb=on") as guest:
        guest.machine.start()
        assert guest.grows()


def test_stopping_takes_no_time(framework: Framework, tmp_path: Path) -> None:
    with Running(framework, BEATING, tmp_path, smp="2") as guest:
        guest.machine.start()
        assert guest.grows()
        guest.machine.pause()
        begun = monotonic()
        guest.machine.close()  # also while it is paused
        assert monotonic() - begun < AT_ONCE
