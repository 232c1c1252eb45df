"""CPU hot-plug into running kvm guests, through the Python interface."""

from __future__ import annotations

import gc
import os
import re
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from guest_programs import AT_ONCE, POWER_PORT, SLEEP_ENABLE, SPIN, Program

from cpufw.core.cpu import CPUState
from cpufw.core.hotplug import HotplugEvent, HotplugEventKind, SlotState
from cpufw.core.machine import Machine
from cpufw.errors import HotplugError, NotFoundError, PropertyError, UsageError
from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

TYPE = "Haswell-x86_64-cpu"
PATIENCE = 60.0  # seconds; far more than any step takes

# The hot-plug registers: QEMU docs/specs/acpi_cpu_hotplug.
SELECTOR, FLAGS, COMMAND, DATA = 0xCD8, 0xCDC, 0xCDD, 0xCE0
REMOVE, EJECT = 1 << 2, 1 << 3
OST_EVENT, OST_STATUS = 1, 2
EJECT_REQUEST, DEVICE_BUSY = 3, 0x82


class Guest:
    """A machine that runs, and what its guest has printed."""

    def __init__(self) -> None:
        self.machine: Machine
        self.text = ""

    def serial(self, data: bytes) -> None:
        self.text += data.decode()

    def wait(self, what: str, found: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not found():
            outcome = self.machine.wait(0.01)
            assert outcome.reason == "timeout", outcome.message
            assert time.monotonic() < deadline, f"no {what}; the guest said {self.text[-500:]}"

    def wait_for(self, text: str, times: int = 1) -> None:
        self.wait(f"'{text}'", lambda: self.text.count(text) >= times)

    def add(self, index: int, id: str = "") -> None:
        self.machine.device_add(TYPE, id=id or f"cpu{index}", **place(self.machine, index))

    def state(self, index: int) -> SlotState:
        return self.machine.slots[index].state

    def wait_for_state(self, index: int, state: SlotState) -> None:
        self.wait(f"slot {index} {state.value}", lambda: self.state(index) is state)

    def kinds(self, index: int) -> list[str]:
        """The kinds of all the events of a slot so far."""
        events = self.machine.events(timeout=0)
        return [event.kind.value for event in events if event.slot == index]


def place(machine: Machine, index: int) -> dict[str, int]:
    props = machine.slots[index].id.props()
    return {name.replace("-", "_"): value for name, value in props.items()}


@contextmanager
def running(framework: Framework, start: bool = True, **options: Any) -> Iterator[Guest]:
    """The demo guest, or another `kernel` in protected mode."""
    demo = framework.machine_type("pc").demo
    assert demo is not None
    guest = Guest()
    settings = {"cpu": "Haswell", **demo, "serial": guest.serial, **options}
    with framework.machine("pc", **settings) as guest.machine:
        if start:
            guest.machine.start()
        yield guest


def open_files() -> list[str]:
    """What each descriptor of this process leads to."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115
        except FileNotFoundError:
            continue  # the folder's own
    return sorted(re.sub(r"/proc/\d+/fd", "", each) for each in found)


def vcpu_count() -> int:
    return sum("kvm-vcpu" in each for each in open_files())


def peak_memory(cycles: int) -> int:
    """The most memory, in KiB, that the demonstration takes when it plugs that often."""
    command = [sys.executable, "-m", "cpufw", "demo", "--format", "json", "--cycles", str(cycles)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


# --- the whole way ------------------------------------------------------------------------


def test_plug_and_unplug_as_events_tell_it(framework: Framework) -> None:
    heard: list[HotplugEvent] = []
    with running(framework, smp="1,maxcpus=2") as guest:
        machine = guest.machine
        unsubscribe = machine.subscribe(heard.append)
        guest.wait_for("cpu 0: online")
        since = machine.log.seq
        cpu = machine.device_add(TYPE, id="cpu1", socket_id=0, core_id=1, thread_id=0)
        assert cpu.path == "/machine/peripheral/cpu1"
        assert cpu.granted | cpu.unavailable == cpu.requested
        told = []
        for event in machine.events(since, timeout=PATIENCE):
            told.append(event.kind)
            if event.kind is HotplugEventKind.ONLINE:
                break
        assert told == [
            HotplugEventKind.PLUGGING,
            HotplugEventKind.PRESENT,
            HotplugEventKind.ONLINE,
        ]
        guest.wait_for("cpu 1: online")
        assert [each.cpu_index for each in machine.cpus()] == [0, 1]
        machine.device_del("cpu1")
        guest.wait_for_state(1, SlotState.EMPTY)
        assert [each.cpu_index for each in machine.cpus()] == [0]
        assert not cpu.realized
        guest.wait_for("cpu 1: offline")
        unsubscribe()
        guest.wait("last word", lambda: guest.kinds(1)[-1] == "guest-status")
        numbers = [event.seq for event in machine.events(timeout=0)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert [
            event
            for event in machine.events(since, timeout=0)
            if event.seq in {each.seq for each in heard}
        ] == [event for event in heard if event.seq > since]
        machine.powerdown()
        assert machine.wait(PATIENCE).reason == "power-off"


def test_the_same_slot_a_hundred_times_leaks_nothing(framework: Framework) -> None:
    with running(framework, smp="1,maxcpus=2") as guest:
        guest.wait_for("cpu 0: online")

        def cycle(times: int) -> None:
            for _ in range(times):
                guest.text = ""
                guest.add(1)
                guest.wait_for("cpu 1: online")
                guest.machine.device_del("cpu1")
                guest.wait_for_state(1, SlotState.EMPTY)

        cycle(20)
        files, threads = open_files(), threading.active_count()
        assert vcpu_count() == 2
        cycle(100)
        assert open_files() == files
        assert threading.active_count() == threads
        gc.collect()
        assert sum(isinstance(each, CPUState) for each in gc.get_objects()) == 1
    assert vcpu_count() == 0


def test_a_hundred_plugs_more_take_no_more_memory() -> None:
    # The allocator's arenas still fill up; 100 stacks or CPUs would be more.
    assert peak_memory(120) - peak_memory(20) < 3 << 10


def test_cpus_that_only_print_come_online_too(framework: Framework) -> None:
    with running(framework, smp="3,maxcpus=3") as guest:
        for index in range(3):
            guest.wait_for(f"cpu {guest.machine.slots[index].arch_id}: online")
        assert [guest.state(index) for index in range(3)] == [SlotState.ONLINE] * 3


def test_many_slots_in_any_order(framework: Framework) -> None:
    with running(framework, smp="1,maxcpus=6,sockets=3,cores=1,threads=2") as guest:
        guest.wait_for("cpu 0: online")
        for order in ((5, 1, 3, 2, 4), (2, 5, 4, 1, 3)):
            for index in order:
                guest.add(index)
            for index in order:
                guest.wait_for_state(index, SlotState.ONLINE)
            assert len(guest.machine.cpus()) == 6
            for index in reversed(order):
                guest.machine.device_del(f"cpu{index}")
            for index in order:
                guest.wait_for_state(index, SlotState.EMPTY)
        assert vcpu_count() == 6


def test_64_cpus_plugged_one_by_one(framework: Framework) -> None:
    with running(framework, smp="1,maxcpus=64", memory="16M") as guest:
        guest.wait_for("cpu 0: online")
        for index in range(1, 64):
            guest.add(index)
        for index in range(1, 64):
            guest.wait_for_state(index, SlotState.ONLINE)
        guest.wait_for("cpu 63: online")
        assert vcpu_count() == 64
        guest.machine.powerdown()
        assert guest.machine.wait(PATIENCE).reason == "power-off"
    assert vcpu_count() == 0


def test_machines_that_come_and_go_leave_nothing(framework: Framework) -> None:
    def once() -> None:
        with running(framework, smp="2,maxcpus=3") as guest:
            guest.wait_for("cpu 1: online")
            guest.add(2)

    once()
    files, threads = open_files(), threading.active_count()
    for _ in range(10):
        once()
    assert open_files() == files
    assert threading.active_count() == threads


# --- the guest's answers ------------------------------------------------------------------


def test_guest_that_refuses_keeps_the_cpu(framework: Framework, tmp_path: Path) -> None:
    """It answers the request with _OST "device busy" (ACPI 6.5, 6.3.5), every time."""
    program = Program().say("up\n").outl(SELECTOR, 1)
    start = len(program.code)
    program.wait_for(FLAGS, REMOVE).outb(FLAGS, REMOVE)  # takes note of the request
    program.outb(COMMAND, OST_EVENT).outl(DATA, EJECT_REQUEST)
    program.outb(COMMAND, OST_STATUS).outl(DATA, DEVICE_BUSY)
    program.raw(b"\xe9" + (start - len(program.code) - 5).to_bytes(4, "little", signed=True))
    kernel = program.write(tmp_path / "refuses")
    with running(framework, smp="1,maxcpus=2", kernel=kernel) as guest:
        guest.wait_for("up")
        guest.add(1)
        for _ in range(2):
            since = guest.machine.log.seq
            guest.machine.device_del("cpu1")
            for event in guest.machine.events(since, timeout=PATIENCE):
                if event.kind is HotplugEventKind.UNPLUG_REFUSED:
                    break
            else:
                pytest.fail("the refusal was not told")
            assert event.device == "cpu1"
            assert "0x82" in event.detail
            assert event.state is SlotState.ONLINE
        assert guest.machine.slots[1].cpu is not None
        with pytest.raises(HotplugError, match="taken by cpu1"):
            guest.add(1, id="again")


def test_request_to_a_guest_that_never_answers_stays_and_can_be_repeated(
    framework: Framework, tmp_path: Path
) -> None:
    kernel = Program().say("deaf\n").raw(SPIN).write(tmp_path / "spins")
    with running(framework, smp="1,maxcpus=2", kernel=kernel) as guest:
        guest.wait_for("deaf")
        started = time.monotonic()
        guest.add(1)
        assert time.monotonic() - started < AT_ONCE, "a spinning guest held up the plug"
        assert guest.state(1) is SlotState.PRESENT
        for count in (1, 2, 3):
            guest.machine.device_del("cpu1")
            assert guest.state(1) is SlotState.UNPLUG_REQUESTED
            assert guest.kinds(1).count("unplug-requested") == count
        with pytest.raises(HotplugError, match="unplug-requested"):
            guest.add(1, id="cpu2")
        assert guest.machine.cpus()[1].realized


def broadcast_start_up() -> Program:
    """32-bit code that starts every CPU but its own, as firmware does; each says `A` on 0xe9."""

    def store(address: int, value: int) -> bytes:
        return b"\xc7\x05" + struct.pack("<II", address, value)  # mov dword [address], value

    says_a = bytes.fromhex("b041 e6e9 f4")  # mov al, 'A'; out 0xe9, al; hlt
    trampoline = says_a.ljust(8, b"\xf4")
    lapic = 0xFEE00000  # registers and commands: Intel SDM vol. 3A, 11.4.1 and 11.6.1
    return (
        Program()
        .raw(store(0x8000, int.from_bytes(trampoline[:4], "little")))
        .raw(store(0x8004, int.from_bytes(trampoline[4:], "little")))
        .raw(store(lapic + 0xF0, 0x1FF))
        .raw(store(lapic + 0x300, 0xC4500))
        .raw(store(lapic + 0x300, 0xC4608))
    )


def test_start_up_broadcast_reaches_the_cpus_that_are_there_and_no_other(
    framework: Framework, tmp_path: Path
) -> None:
    program = Program().say("boot\n").raw(broadcast_start_up().code).say("sent\n").raw(SPIN)
    kernel = program.write(tmp_path / "broadcasts")
    with running(framework, smp="2,maxcpus=3", kernel=kernel) as guest:
        guest.wait_for("sent")
        guest.wait_for("A")
        guest.add(2)
        # Its vCPU was created before the broadcast and must not follow it now.
        assert guest.machine.wait(0.5).reason == "timeout"
        assert guest.text.count("A") == 1
        assert guest.state(2) is SlotState.PRESENT


def test_guest_may_eject_a_cpu_that_nobody_asked_for(framework: Framework, tmp_path: Path) -> None:
    program = Program().say("up\n").outl(SELECTOR, 1).wait_for(FLAGS, 1).outb(FLAGS, EJECT)
    kernel = program.say("ejected\n").raw(SPIN).write(tmp_path / "ejects")
    with running(framework, smp="1,maxcpus=2", kernel=kernel) as guest:
        guest.wait_for("up")
        guest.add(1)
        guest.wait_for("ejected")
        assert guest.state(1) is SlotState.EMPTY
        assert guest.kinds(1) == ["plugging", "present", "ejecting", "unplugged"]
        with pytest.raises(NotFoundError, match="cpu1"):
            guest.machine.device_del("cpu1")
        guest.add(1)
        assert guest.state(1) is SlotState.PRESENT
        assert vcpu_count() == 2


def test_guest_cannot_eject_the_boot_cpu(framework: Framework, tmp_path: Path) -> None:
    program = Program().outl(SELECTOR, 0).outb(FLAGS, EJECT).say("still here\n")
    kernel = program.outw(POWER_PORT, SLEEP_ENABLE).halt().write(tmp_path / "ejects")
    with running(framework, kernel=kernel) as guest:
        assert guest.machine.wait(PATIENCE).reason == "power-off"
        assert guest.text == "still here\n"
        assert guest.state(0) is SlotState.ONLINE


# --- before the start, and what is refused ------------------------------------------------


def test_cpus_added_before_the_start_are_there_at_boot(framework: Framework) -> None:
    with running(framework, start=False, smp="1,maxcpus=4") as guest:
        machine = guest.machine
        guest.add(1)
        guest.add(3)
        assert guest.state(1) is SlotState.PRESENT
        guest.add(2, id="short")
        machine.device_del("short")  # nobody needs to be asked yet
        assert guest.state(2) is SlotState.EMPTY
        with pytest.raises(NotFoundError):
            machine.device_del("short")
        machine.start()
        guest.wait_for("cpu 1: online")
        guest.wait_for("cpu 3: online")
        assert "cpu 2:" not in guest.text
        machine.device_del("cpu3")
        guest.wait_for_state(3, SlotState.EMPTY)


def test_what_is_refused_changes_nothing(framework: Framework) -> None:
    with running(framework, smp="1,maxcpus=4,sockets=2,cores=2,threads=1") as guest:
        machine = guest.machine
        guest.wait_for("cpu 0: online")
        guest.add(1)
        guest.wait_for("cpu 1: online")
        files, seq = open_files(), machine.log.seq
        good = {"socket_id": 1, "core_id": 0, "thread_id": 0}
        refused: list[tuple[type[Exception], str, str, dict[str, Any]]] = [
            (HotplugError, "taken by cpu1", TYPE, {"socket_id": 0, "core_id": 1, "thread_id": 0}),
            (HotplugError, "taken by", TYPE, {"socket_id": 0, "core_id": 0, "thread_id": 0}),
            (HotplugError, "id 'cpu1' is in use", TYPE, {**good, "id": "cpu1"}),
            (HotplugError, "core-id=2.*0 to 1", TYPE, {**good, "core_id": 2}),
            (HotplugError, "core-id is not set", TYPE, {"socket_id": 1, "thread_id": 0}),
            (PropertyError, "core-id=one", TYPE, {**good, "core_id": "one"}),
            (PropertyError, "shoe_size", TYPE, {**good, "shoe_size": 43}),
            (HotplugError, "qemu64-x86_64-cpu cannot be plugged", "qemu64-x86_64-cpu", good),
            (NotFoundError, "Haswell-x86_64-cpu", "Haswel-x86_64-cpu", good),
            (HotplugError, "'9lives' is not valid", TYPE, {**good, "id": "9lives"}),
        ]
        for error, words, driver, properties in refused:
            with pytest.raises(error, match=words):
                machine.device_add(driver, **properties)
        with pytest.raises(HotplugError, match="boot CPU"):
            machine.request_unplug(machine.slots[0])
        with pytest.raises(HotplugError, match=r"slot 2 .* is empty"):
            machine.request_unplug(machine.slots[2])
        assert machine.log.seq == seq
        assert open_files() == files
        assert [slot.state.value for slot in machine.slots] == ["online"] * 2 + ["empty"] * 2
        guest.add(2)  # and all still works
        guest.wait_for_state(2, SlotState.ONLINE)


def test_a_machine_is_started_once_and_closed_as_often_as_one_likes(framework: Framework) -> None:
    with running(framework) as guest:
        guest.wait_for("cpu 0: online")
        with pytest.raises(HotplugError, match="started already"):
            guest.machine.start()
        guest.machine.close()
        guest.machine.close()
        with pytest.raises(HotplugError, match="closed"):
            guest.add(0)
    with (
        framework.machine("pc", cpu="Haswell", memory="2M") as machine,
        pytest.raises(UsageError, match="without a kernel"),
    ):
        machine.start()


def test_end_of_the_machine_ends_the_events(framework: Framework) -> None:
    with running(framework) as guest:
        told: list[HotplugEvent] = []
        reader = threading.Thread(target=lambda: told.extend(guest.machine.events()))
        reader.start()
        guest.wait_for("cpu 0: online")
    reader.join(PATIENCE)
    assert not reader.is_alive()
    assert [event.kind.value for event in told][:3] == ["plugging", "present", "online"]
