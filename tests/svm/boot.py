"""Boot the test host in QEMU TCG, show its console, and bring its results back."""

import os
import re
import select
import subprocess
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from image import QEMU
from steps import HostError, say

RESULTS_BYTES = 64 << 20
BOOTS = 3  # a host that hangs, as TCG's now and then does, is booted again
SILENCE = 90.0  # seconds without a word from a host whose tests take a few each: it hangs
PHASE_LINE = re.compile(rb"^svm-host: phase (\w+)", re.MULTILINE)

# `max` has SVM and nested paging. One CPU: with two, TCG hung in every few minutes of guests.
MACHINE = ["-accel", "tcg,tb-size=512", "-machine", "q35", "-cpu", "max", "-smp", "1"]
BARE = ["-nodefaults", "-no-reboot", "-display", "none"]
# A panic ends QEMU at once. The clock is trusted, since calibrating it under emulation is not
# reliable; mitigations and self-tests of ciphers only cost time here.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off tsc=reliable no_timer_check "
    "random.trust_cpu=on cryptomgr.notests"
)


@dataclass(frozen=True)
class Inputs:
    """What one boot needs: the kernel, the initramfs, memory in MiB."""

    kernel: Path
    initrd: Path
    memory: int


@dataclass
class Ending:
    """How a host ended: `results` by file name, empty when it did not get that far.

    `earlier` are the reasons why the boots before this one failed.
    """

    reason: str
    results: dict[str, bytes] = field(default_factory=dict)
    seconds: list[tuple[str, float]] = field(default_factory=list)
    earlier: tuple[str, ...] = ()

    @property
    def status(self) -> int | None:
        """The exit status of the command it ran; None when the host did not come to its end."""
        said = self.results.get("status")
        return None if said is None else int(said)


def qemu_command(inputs: Inputs, console: str) -> list[str]:
    """QEMU with its first serial port, the host's console, on `console`."""
    boot = ["-kernel", str(inputs.kernel), "-initrd", str(inputs.initrd)]
    boot += ["-append", KERNEL_ARGUMENTS, "-m", str(inputs.memory), "-serial", console]
    return [QEMU, *MACHINE, *BARE, *boot]


def boot(inputs: Inputs, work: Path, timeout: float, console: BinaryIO) -> Ending:
    """One boot: what it prints goes to `console`; killed after `timeout` seconds."""
    results = work / "results.raw"
    results.unlink(missing_ok=True)
    with results.open("wb") as disk:
        disk.truncate(RESULTS_BYTES)
    start = time.monotonic()
    process = subprocess.Popen(
        [*qemu_command(inputs, "stdio"), "-drive", f"if=virtio,format=raw,file={results}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        seconds = follow(process, start, start + timeout, console)
        if seconds is None:
            passed = time.monotonic() - start
            return Ending(f"it was killed after {passed:.0f} s: too long, or silent for too long")
        process.wait()
    finally:
        process.kill()
        process.wait()
    found = read_results(results)
    if "status" not in found:
        return Ending(f"it ended early (QEMU's exit status {process.returncode})", found, seconds)
    return Ending("it ran to its end", found, seconds)


def follow(
    process: subprocess.Popen[bytes], start: float, deadline: float, output: BinaryIO
) -> list[tuple[str, float]] | None:
    """Copy the console until it closes: how long each phase took.

    None at the deadline, or when nothing comes for `SILENCE` seconds.
    """
    assert process.stdout is not None
    console = process.stdout.fileno()
    phases: list[tuple[str, float]] = []
    phase, since, line = "boot", start, b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([console], [], [], min(left, SILENCE))[0]:
            break
        text = os.read(console, 1 << 16)
        now = time.monotonic()
        if not text:
            return phases
        output.write(text.replace(b"\r\n", b"\n"))
        output.flush()
        line += text
        while b"\n" in line:
            whole, line = line.split(b"\n", 1)
            found = PHASE_LINE.match(whole)
            if found:
                phases.append((phase, now - since))
                phase, since = found.group(1).decode(), now
    return None


def read_results(disk: Path) -> dict[str, bytes]:
    """The files of the tar on the results disk; none when nothing was written there."""
    found = {}
    try:
        with tarfile.open(disk) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None:
                    found[Path(member.name).name] = content.read()
    except tarfile.ReadError:
        return {}
    return found


def boot_until_it_ends(inputs: Inputs, work: Path, timeout: float, console: BinaryIO) -> Ending:
    """Boot, up to `BOOTS` times if the host itself hangs or dies."""
    earlier: list[str] = []
    while True:
        ending = boot(inputs, work, timeout, console)
        if ending.status is not None:
            ending.earlier = tuple(earlier)
            return ending
        earlier.append(ending.reason)
        if len(earlier) == BOOTS:
            raise HostError(f"the host failed {BOOTS} times; the last time {ending.reason}")
        say(f"THE HOST FAILED: {ending.reason}. Trying again.")


def interactive(command: Sequence[str]) -> int:
    """Run QEMU on this terminal: its exit status."""
    return subprocess.run(command, check=False).returncode
