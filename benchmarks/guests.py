"""Figures of running guests: the first exit, port exits, and hot-plugged CPUs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cpufw
from benchmarks.figures import NO_TARGET, Figure, Row, Target, milliseconds, percentile
from benchmarks.reference_program import ReferenceProgram, write_cpuid
from benchmarks.toolchain import AP_PORT, READY_PORT, WRITTEN_PORT, build_guest, build_program
from cpufw.core.accel import Accelerator
from cpufw.core.machine import Machine
from cpufw_x86.pc import PcBoard

MODEL = "Haswell"
_TYPE = f"{MODEL}-x86_64-cpu"
_MIB = 1 << 20
_PATIENCE = 20.0  # seconds until a guest counts as stuck
_SETTLE = 0.002  # between two hot-plugs, as in reference/hotplug.c, so that the guest sleeps again


class PortProbe:
    """A device of one port that calls `on_write` for each write."""

    def __init__(self, port: int, on_write: Callable[[], None]) -> None:
        self.ports = range(port, port + 1)
        self._on_write = on_write

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 (PortDevice)
        """Nothing to say."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002 (PortDevice)
        """Tell of it."""
        self._on_write()


class Moment:
    """When something happened on another thread."""

    def __init__(self) -> None:
        # A bare lock: whoever waits gives up the GIL at once, and the guest's threads need it.
        self._awaited = threading.Lock()
        self._awaited.acquire()
        self._ns = 0

    def note(self) -> None:
        """It happens now; only the first time counts until `wait`."""
        if self._awaited.locked():
            self._ns = time.perf_counter_ns()
            self._awaited.release()

    def wait(self) -> int:
        """When it happened, in `perf_counter_ns`. Raises `TimeoutError`."""
        if not self._awaited.acquire(timeout=_PATIENCE):
            raise TimeoutError("the guest is stuck")
        return self._ns


@dataclass(frozen=True)
class Bench:
    """What all the measurements need: an opened accelerator, a scratch folder, how much to do."""

    framework: cpufw.Framework
    accelerator: Accelerator
    folder: Path
    scale: float

    def times(self, count: int) -> int:
        """`count` scaled, at least 2."""
        return max(2, round(count * self.scale))

    def machine(self, image: Path, memory: int, smp: str = "1", **options: Any) -> Machine:
        """A pc with `memory` bytes that will run `image`."""
        return self.framework.machine(
            "pc", MODEL, smp, self.accelerator, kernel=image, memory=memory, **options
        )

    def cpuid(self, image: Path, smp: str) -> Path:
        """What the boot CPU of such a machine is given, for the reference programs."""
        with self.machine(image, _MIB, smp) as machine:
            return write_cpuid(machine.cpus()[0], self.folder / f"{image.stem}.cpuid")


def _probe(machine: Machine, port: int, on_write: Callable[[], None]) -> None:
    board = machine.board
    assert isinstance(board, PcBoard)
    board.chipset.ports.add(PortProbe(port, on_write))


def first_exit(bench: Bench) -> list[Row]:
    """From `Machine()` to the guest's first port access, and the same ioctls in C."""
    memory, runs = 128 * _MIB, bench.times(40)
    image = build_guest("port_writes", bench.folder)
    program = build_program("first_exit", bench.folder)
    ours, theirs = [], []
    with ReferenceProgram(program, memory, image, bench.cpuid(image, "1")) as reference:
        for _ in range(runs):
            moment = Moment()
            start = time.perf_counter_ns()
            with bench.machine(image, memory) as machine:
                _probe(machine, WRITTEN_PORT, moment.note)
                machine.start()
                ours.append(milliseconds(moment.wait() - start))
            theirs.append(milliseconds(reference.ask()[0][0]))
            time.sleep(0.02)  # the kernel takes the VMs apart in the background
    return [
        Figure(
            "Machine() to the guest's first exit, p50",
            "ms",
            median(ours),
            Target(most=3),
            runs,
            "C, same ioctls",
            median(theirs),
        )
    ]


class Burst:
    """Counts what a guest does without end, `size` at a time; the guest stands still between."""

    def __init__(self) -> None:
        self._left = self._started = 0
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._rate = 0.0
        self._size = 0
        self._closed = False

    def count(self, amount: int = 1) -> None:
        """`amount` more, on the vCPU's thread."""
        self._left -= amount
        if self._left > 0 or self._closed:
            return
        if self._size:
            elapsed = time.perf_counter_ns() - self._started
            self._rate = (self._size - self._left) / elapsed * 1e9
            self._done.release()
        self._go.acquire()
        self._left = self._size
        self._started = time.perf_counter_ns()

    def run(self, size: int) -> float:
        """Let the guest do `size` more; how many it did a second. Raises `TimeoutError`."""
        self._size = size
        self._go.release()
        if not self._done.acquire(timeout=_PATIENCE):
            raise TimeoutError("the guest is stuck")
        return self._rate

    def close(self) -> None:
        """Count no more and let the guest go."""
        self._closed = True
        self._go.release()


def port_exits(bench: Bench) -> list[Row]:
    """Port accesses a second that Python serves."""
    memory, size, runs = 16 * _MIB, 20_000, bench.times(15)
    image = build_guest("port_writes", bench.folder)
    program = build_program("port_exits", bench.folder)
    ours, theirs = [], []
    burst = Burst()
    with (
        ReferenceProgram(program, memory, image, bench.cpuid(image, "1")) as reference,
        bench.machine(image, memory) as machine,
    ):
        _probe(machine, WRITTEN_PORT, burst.count)
        machine.start()
        try:
            burst.run(size)  # the first of each is not counted
            reference.ask(size)
            for _ in range(runs):
                ours.append(burst.run(size))
                theirs.append(size / reference.ask(size)[0][0] * 1e9)
        finally:
            burst.close()
    return [
        Figure(
            "port exits served by Python",
            "/s",
            median(ours),
            Target(least=0.6),
            runs,
            "C loop of KVM_RUN",
            median(theirs),
        )
    ]


class SerialMeter:
    """A serial port's sink that takes the time of `size` bytes after the first ones."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._first = self._seen = self._began = 0
        self._rate = 0.0
        self._measured = threading.Event()

    def take(self, data: bytes) -> None:
        """The port's output."""
        now = time.perf_counter_ns()
        self._seen += len(data)
        if not self._began:
            self._began, self._first = now, self._seen
        elif not self._rate and self._seen - self._first >= self._size:
            self._rate = (self._seen - self._first) / (now - self._began) * 1e9
            self._measured.set()

    def rate(self) -> float:
        """Bytes a second. Raises `TimeoutError`."""
        if not self._measured.wait(10 * _PATIENCE):
            raise TimeoutError("the guest is stuck")
        return self._rate


def serial_output(bench: Bench) -> list[Row]:
    """Time for 1 MB of serial output, the guest's bytes one by one, all the way to a sink."""
    memory, size, runs = 16 * _MIB, _MIB // 8, bench.times(8)
    image = build_guest("serial_text", bench.folder)
    program = build_program("port_exits", bench.folder)
    ours, theirs = [], []
    with ReferenceProgram(program, memory, image, bench.cpuid(image, "1")) as reference:
        for _ in range(runs):
            meter = SerialMeter(size)
            with bench.machine(image, memory, serial=meter.take) as machine:
                machine.start()
                ours.append(1e6 / meter.rate())
            theirs.append(reference.ask(size)[0][0] / size / 1e3)
    return [
        Figure(
            "1 MB of serial output",
            "s",
            median(ours),
            Target(most=1.2),
            runs,
            "C loop of KVM_RUN",
            median(theirs),
        )
    ]


def hotplug(bench: Bench) -> list[Row]:
    """From `device_add` to the new CPU's first instruction.

    Into the first empty slot, for which cpufw keeps a vCPU ready; into any other; and into slots
    whose vCPU is parked.
    """
    memory, cpus, rounds = 16 * _MIB, 100, bench.times(5)
    smp = f"1,maxcpus={cpus}"
    image = build_guest("hotplug", bench.folder)
    program = build_program("hotplug", bench.folder)
    ours: tuple[list[float], list[float], list[float]] = ([], [], [])
    theirs: tuple[list[float], list[float]] = ([], [])
    with ReferenceProgram(program, memory, image, bench.cpuid(image, smp), cpus) as reference:
        for _ in range(rounds):
            for samples, fresh in zip(ours, _hotplug_round(bench, image, memory, smp), strict=True):
                samples += map(milliseconds, fresh)
            for samples, answer in zip(theirs, reference.ask(lines=2), strict=True):
                samples += map(milliseconds, answer)
    cases = (
        ("first empty slot", ours[0], "KVM_CREATE_VCPU", theirs[0], Target(most=2)),
        ("another empty slot", ours[1], "KVM_CREATE_VCPU", theirs[0], NO_TARGET),
        ("parked vCPU", ours[2], "KVM_CREATE_VCPU", theirs[0], Target(most=2)),
        ("parked vCPU", ours[2], "parked vCPU", theirs[1], NO_TARGET),
    )
    return [
        Figure(
            f"device_add to the CPU's first instruction, {kind}, p{percent}",
            "ms",
            percentile(own, percent),
            target,
            len(own),
            f"C, {path}",
            percentile(other, percent),
        )
        for kind, own, path, other, target in cases
        for percent in (50, 99)
    ]


def _hotplug_round(
    bench: Bench, image: Path, memory: int, smp: str
) -> tuple[list[int], list[int], list[int]]:
    """Nanoseconds of each plug in a fresh machine, by what is in the slots before."""
    ready, started = Moment(), Moment()
    unplugged = threading.Semaphore(0)

    def plug(index: int) -> int:
        start = time.perf_counter_ns()
        machine.device_add(_TYPE, id=f"cpu{index}", socket_id=0, core_id=index, thread_id=0)
        latency = started.wait() - start
        time.sleep(_SETTLE)
        return latency

    def unplug(index: int) -> None:
        machine.device_del(f"cpu{index}")
        if not unplugged.acquire(timeout=_PATIENCE):
            raise TimeoutError("the guest did not eject its CPU")
        time.sleep(_SETTLE)

    with bench.machine(image, memory, smp, entry_mode="protected") as machine:
        _probe(machine, READY_PORT, ready.note)
        _probe(machine, AP_PORT, started.note)
        is_unplugged = cpufw.HotplugEventKind.UNPLUGGED
        machine.subscribe(lambda e: unplugged.release() if e.kind is is_unplugged else None)
        machine.start()
        ready.wait()
        time.sleep(_SETTLE)
        slots = range(1, len(machine.slots))
        half = len(slots) // 2
        first = [plug(index) for index in slots[:half]]
        another = [plug(index) for index in reversed(slots[half:])]
        parked = []
        for index in slots:
            unplug(index)
            parked.append(plug(index))
    return first, another[:-1], parked  # the last slot was the only empty one, so the first
