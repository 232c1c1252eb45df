"""Figures of Linux booting in whole processes: the kernel's first serial byte, and `/init`."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.figures import NO_TARGET, Figure, Row, Skipped, Target

MODEL = "Haswell-v4,level=0xb,-xsave"
CPUS = 2
_COMMAND_LINE = (
    "console=ttyS0 earlyprintk=serial,ttyS0 nokaslr mitigations=off panic=-1 no_timer_check "
    "tsc=reliable clearcpuid=erms,fsrm,smap,popcnt,smep rodata=off quiet rdinit=/init"
)
_READY = b"ready"  # what tests/guests/init.c says first
_PATIENCE = 120.0  # seconds for one boot


@dataclass(frozen=True)
class Guest:
    """A kernel, its initial RAM disk and its command line."""

    kernel: Path
    initrd: Path
    append: str = _COMMAND_LINE

    def under_cpufw(self) -> list[str]:
        """The command that boots it under this cpufw."""
        command = [sys.executable, "-m", "cpufw", "run", "--serial", "stdio", "-m", "64M"]
        command += ["--cpu", MODEL, "--smp", f"{CPUS},maxcpus=4", "--kernel", str(self.kernel)]
        return [*command, "--initrd", str(self.initrd), "--append", self.append]

    def under_qemu(self, program: str) -> list[str]:
        """The same under QEMU, with nothing on the machine that it does not need."""
        command = [program, "-nodefaults", "-display", "none", "-serial", "stdio", "-accel", "kvm"]
        command += ["-smp", str(CPUS), "-m", "64M", "-no-reboot", "-kernel", str(self.kernel)]
        return [*command, "-initrd", str(self.initrd), "-append", self.append]

    def under(self, template: str) -> list[str]:
        """The same under another program; `template` has {kernel}, {initrd} and {append}."""
        values = {"kernel": self.kernel, "initrd": self.initrd, "append": self.append}
        return [word.format(**values) for word in shlex.split(template)]


def linux_figures(guests: str, scale: float, other_vmm: str) -> Iterator[Row]:
    """Boot the Linux of the folder `guests` (from `make guests`) under cpufw and beside it.

    `other_vmm` is the command of a program that boots it too, to compare the way to `/init` with.
    """
    guest = Guest(Path(guests, "vmlinux"), Path(guests, "init.cpio"))
    if not guests or not guest.kernel.exists():
        yield Skipped("linux", "CPUFW_GUESTS names no folder that make guests built")
        return
    runs = max(2, round(3 * scale))
    qemu = shutil.which("qemu-system-x86_64")
    others = {"QEMU, firmware included": guest.under_qemu(qemu)} if qemu else {}
    yield from _compared("the kernel's first serial byte", b"", guest, others, Target(most=1), runs)
    others = {Path(shlex.split(other_vmm)[0]).name: guest.under(other_vmm)} if other_vmm else {}
    target = Target(most=1.15) if others else NO_TARGET
    yield from _compared("Linux's /init", _READY, guest, others, target, runs)


def _compared(
    what: str,
    mark: bytes,
    guest: Guest,
    others: dict[str, list[str]],
    target: Target,
    runs: int,
) -> Iterator[Row]:
    """One figure: in turns until each has printed `mark`, after one run that only warms up."""
    name, other = next(iter(others.items()), ("", []))
    ours, theirs = [], []
    try:
        _seconds_until(b"", guest.under_cpufw())
        for _ in range(runs):
            ours.append(_seconds_until(mark, guest.under_cpufw()))
            if other:
                theirs.append(_seconds_until(mark, other))
    except (OSError, TimeoutError) as error:
        yield Skipped(f"start of process to {what}", str(error))
        return
    reference = median(theirs) if theirs else None
    title = f"start of process to {what}"
    yield Figure(title, "s", median(ours), target, runs, name, reference)


def _seconds_until(mark: bytes, command: Sequence[str]) -> float:
    """From the start of `command` until it has printed `mark`, or anything if that is empty.

    Raises `TimeoutError` if it does not.
    """
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed cpufw is compiled, too
    seen, start = b"", time.monotonic()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            while not seen or mark not in seen:
                left = start + _PATIENCE - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    raise TimeoutError(f"{command[0]} did not come so far in {_PATIENCE:g} s")
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise TimeoutError(f"{command[0]} ended before it came so far")
                seen += chunk
            return time.monotonic() - start
        finally:
            process.kill()
