"""A guest that reads and writes ports and device memory at random: cpufw stays up and stays small.

`CPUFW_FUZZ_SECONDS=60` makes each run that long.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from guest_compiler import image_of

from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

SECONDS = float(os.environ.get("CPUFW_FUZZ_SECONDS", "1"))
PATIENCE = 60.0
MOST_GROWTH = 48 << 10  # KiB: the guest's 32 MiB of memory, and what else a run needs

# Any of these ends is a guest's good right when it writes to all ports.
ENDS = ("exit", "power-off", "reset", "died", "timeout")


def memory_in_use() -> int:
    """Of this process, in KiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0])


def thread_count() -> int:
    """Of this process, whoever started them."""
    return len(list(Path("/proc/self/task").iterdir()))


def fuzz(framework: Framework, tmp_path: Path, arguments: str, **options: Any) -> tuple[str, str]:
    """Run it on a machine with all devices; what it said, and how it ended."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    output = bytearray()
    threads = thread_count()
    with framework.machine(
        "pc",
        cpu="Haswell,check=off",
        smp="1,maxcpus=4",
        memory="32M",
        kernel=image_of("fuzz", arguments),
        serial=output.extend,
        serial_ports=4,
        drives=[f"file={disk}"],
        virtio_console=True,
        rng=True,
        **options,
    ) as machine:
        before = memory_in_use()
        machine.start()
        outcome = machine.wait(SECONDS * 4 + 2)
        machine.stop()
        grown = memory_in_use() - before
    assert grown < MOST_GROWTH
    deadline = time.monotonic() + PATIENCE  # a thread is counted a moment longer than it runs
    while thread_count() > threads:
        assert time.monotonic() < deadline, f"{thread_count()} threads, there were {threads}"
    assert disk.stat().st_size == 1 << 20
    assert outcome.reason in ENDS
    return output.decode("latin-1"), outcome.reason


@pytest.mark.parametrize("irqchip", ["on", "split"])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_accesses(framework: Framework, tmp_path: Path, seed: int, irqchip: str) -> None:
    arguments = f"ms={int(SECONDS * 1000)} seed={seed}"
    said, end = fuzz(framework, tmp_path, arguments, kernel_irqchip=irqchip)
    assert end == "exit", said[-300:]
    assert "ok random_accesses" in said


@pytest.mark.parametrize("seed", range(1, 5))
def test_reckless_accesses(framework: Framework, tmp_path: Path, seed: int) -> None:
    arguments = f"ms={int(SECONDS * 500)} seed={seed} reckless"
    fuzz(framework, tmp_path, arguments, reboot=False)
