"""A shell of Linux on a serial port: what is typed and pasted comes through, both ways."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from linux_guest import COMMAND_LINE, PATIENCE, guest_file

from cpufw.chardev import parse_chardev
from cpufw.core.machine import Machine
from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

ORDINARY = {"vmx", "svm"} & set(Path("/proc/cpuinfo").read_text().split())

# A KVM without VMX and SVM emulates ring 0 and runs ring 3 natively: there instructions that cost
# an exit are better left out, the C library must not choose some whose registers this kernel does
# not save, and bigger pastes take minutes.
EMULATED = (
    "clearcpuid=erms,fsrm,smap,popcnt,smep "
    "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ"
)
ARGUMENTS = COMMAND_LINE if ORDINARY else f"{COMMAND_LINE} {EMULATED}"
PASTE = 100_000 if ORDINARY else 6_000


class Shell:
    """The prompt `# ` at the other end of a socket."""

    def __init__(self, machine: Machine, line: socket.socket) -> None:
        self._machine, self._line = machine, line
        self._line.settimeout(1)
        self._seen = b""

    def expect(self, text: bytes) -> bytes:
        """What comes before `text`."""
        deadline = time.monotonic() + PATIENCE
        while text not in self._seen:
            assert time.monotonic() < deadline, self._seen
            assert self._machine.wait(0.001).reason == "timeout"
            try:
                self._seen += self._line.recv(65_536)
            except TimeoutError:
                continue
        before, _, self._seen = self._seen.partition(text)
        return before

    def do(self, command: str) -> bytes:
        """The output of a command that is typed, its echo left out."""
        self.type(f"{command}; echo -''the-end-\n".encode())
        output = self.expect(b"-the-end-")
        self.expect(b"# ")
        return output.rpartition(b"the-end-\r\n")[2]

    def type(self, data: bytes) -> None:
        """Send it as fast as it is taken, without waiting."""
        threading.Thread(target=self._line.sendall, args=(data,), daemon=True).start()


@pytest.fixture(scope="module")
def shell(framework: Framework) -> Iterator[Shell]:
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        parse_chardev(f"fd:{theirs.fileno()}") as chardev,
        framework.machine(
            "pc",
            cpu="Haswell-v4",
            kernel=guest_file("vmlinux"),
            initrd=str(guest_file("busybox.cpio")),
            append=ARGUMENTS,
            memory="96M",
            serial=[chardev],
        ) as machine,
    ):
        machine.start()
        shell = Shell(machine, ours)
        shell.expect(b"# ")
        yield shell


def test_typed_commands_are_answered(shell: Shell) -> None:
    for number in range(5):
        assert shell.do(f"echo $(({number} * 7 + 1))") == f"{number * 7 + 1}\r\n".encode()


def test_linux_found_a_16550a_with_its_interrupt(shell: Shell) -> None:
    line = shell.do("grep 16550A /proc/tty/driver/serial").decode()
    assert "port:000003F8 irq:4" in line
    assert "oe:" not in line  # nothing was overrun
    assert int(shell.do("grep ttyS0 /proc/interrupts").split()[1]) > 10


def test_paste_arrives_whole(shell: Shell) -> None:
    line = b"%06d the quick brown fox jumps over the lazy dog\n"
    text = b"".join(line % number for number in range(PASTE // len(line % 0)))
    shell.do("stty -echo")
    shell.type(b"echo ready; cat > /tmp/pasted; md5sum < /tmp/pasted; stty echo\n")
    shell.expect(b"ready\r\n")
    shell.type(text + b"\x04")
    assert shell.expect(b" ").decode() == hashlib.md5(text).hexdigest()
    shell.expect(b"# ")


def test_long_output_arrives_whole(shell: Shell) -> None:
    count = 20_000 if ORDINARY else 1_000
    expected = "".join(f"{number}\r\n" for number in range(1, count + 1))
    assert shell.do(f"seq {count}").decode() == expected
