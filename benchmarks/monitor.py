"""Figures of the monitor: start to greeting, round trips, `device_add`, and growth."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import cpufw_x86
from benchmarks.figures import Figure, Row, Target, milliseconds, percentile
from benchmarks.guests import MODEL, Bench

_QEMU = "qemu-system-x86_64"
_TYPE = f"{MODEL}-x86_64-cpu"
_SLOTS = 100
_SMP = f"1,maxcpus={_SLOTS},sockets={_SLOTS},cores=1,threads=1"
_PATIENCE = 30.0  # seconds until a process counts as stuck
_CYCLES = 1000
_DEMO = Path(cpufw_x86.__file__).parent / "guest" / "demo.bin"


class Client:
    """A QMP client that waits for each reply."""

    def __init__(self, path: Path) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                self._socket.close()
                if time.monotonic() > until:
                    raise TimeoutError(f"nobody listens at {path}") from None
                time.sleep(0.001)
        self._socket.settimeout(_PATIENCE)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()
        self.greeted = time.perf_counter_ns()
        self.execute("qmp_capabilities")

    def execute(self, name: str, **arguments: Any) -> int:
        """Nanoseconds until the reply. Raises `RuntimeError` if it is an error."""
        request = json.dumps({"execute": name, "arguments": arguments}).encode()
        begin = time.perf_counter_ns()
        self._socket.sendall(request)
        while (line := self._lines.readline()).find(b'"event"') >= 0:
            pass
        elapsed = time.perf_counter_ns() - begin
        if b'"error"' in line:
            raise RuntimeError(f"{name}: {line.decode().strip()}")
        return elapsed

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()


@contextmanager
def _served(command: Sequence[str | Path], path: Path) -> Iterator[tuple[Client, float, int]]:
    """A client of a process, milliseconds from its start to the greeting, and its number."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(path.parent / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin = time.perf_counter_ns()
    process = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
    )
    try:
        client = Client(path)
        yield client, milliseconds(client.greeted - begin), process.pid
        client.close()
    finally:
        process.kill()
        process.wait()
        path.unlink(missing_ok=True)


def _cpufw(path: Path) -> list[str | Path]:
    run = [sys.executable, "-m", "cpufw", "run", "--cpu", MODEL, "--smp", _SMP]
    return [*run, "--serial", "none", "--paused", "--qmp", f"unix:{path}", _DEMO]


def _qemu(path: Path) -> list[str | Path] | None:
    program = shutil.which(_QEMU)
    if program is None:
        return None
    run: list[str | Path] = [program, "-machine", "q35", "-accel", "kvm", "-cpu", MODEL]
    run += ["-smp", _SMP, "-nodefaults", "-display", "none", "-S"]
    return [*run, "-qmp", f"unix:{path},server=on,wait=off"]


def _measured(
    command: Sequence[str | Path], path: Path, trips: int
) -> tuple[float, float, list[float]]:
    """Of one process: ms to the greeting, round trips a second, ms of each device_add."""
    with _served(command, path) as (client, greeting, _):
        begin = time.perf_counter()
        for _ in range(trips):
            client.execute("query-cpus-fast")
        a_second = trips / (time.perf_counter() - begin)
        added = []
        for slot in range(1, _SLOTS):
            place = {"socket-id": slot, "core-id": 0, "thread-id": 0}
            took = client.execute("device_add", driver=_TYPE, id=f"cpu{slot}", **place)
            added.append(milliseconds(took))
        return greeting, a_second, added


def _growth(command: Sequence[str | Path], path: Path, cycles: int) -> float:
    """How many MiB a process grows by so many plugs and unplugs, a tenth of them before."""
    with _served(command, path) as (client, _, pid):
        place = {"socket-id": 1, "core-id": 0, "thread-id": 0}
        before = 0
        for turn in range(-cycles // 10, cycles):
            if turn == 0:
                before = _resident(pid)
            client.execute("device_add", driver=_TYPE, id="cpu", **place)
            client.execute("device_del", id="cpu")
        return (_resident(pid) - before) / 1024


def _resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def monitor(bench: Bench) -> list[Row]:
    """A paused guest of 100 slots on both sides, in turns."""
    path = bench.folder / "qmp.sock"
    runs, trips = bench.times(10), bench.times(2000)
    ours, theirs = [], []
    qemu = _qemu(path)
    _measured(_cpufw(path), path, trips)  # compiles the modules
    for _ in range(runs):
        ours.append(_measured(_cpufw(path), path, trips))
        if qemu:
            theirs.append(_measured(qemu, path, trips))
    reference = "" if qemu is None else f"{Path(str(qemu[0])).name}, the same KVM"

    def figure(what: str, unit: str, at: int, target: Target) -> Figure:
        value, other = (median([each[at] for each in side]) if side else None
                        for side in (ours, theirs))  # fmt: skip
        assert value is not None
        return Figure(what, unit, value, target, runs, reference, other)

    rows: list[Row] = [
        figure("start of the process to QMP's greeting", "ms", 0, Target(most=1)),
        figure("query-cpus-fast, round trips", "1/s", 1, Target(least=0.5)),
    ]
    samples = [[took for each in side for took in each[2]] for side in (ours, theirs)]
    for percent in (50, 99):
        value, other = (percentile(side, percent) if side else None for side in samples)
        assert value is not None
        what = f"QMP device_add to its reply, p{percent}"
        rows.append(Figure(what, "ms", value, Target(most=1), len(samples[0]), reference, other))
    cycles = bench.times(_CYCLES)
    grown = _growth(_cpufw(path), path, cycles)
    what = "growth by plugs and unplugs over QMP"
    rows.append(Figure(what, "MiB", grown, Target(most=1, of_ratio=False), cycles))
    return rows
