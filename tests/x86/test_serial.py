"""Serial ports as a user has them: guests that echo, terminals, sockets, and what goes wrong."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from guest_compiler import BUILT
from guest_programs import AT_ONCE, Program, command, cpufw, environment
from serial_guests import END, INTERRUPTS, POLLS, PORTS, SENDS, SENDS_BLINDLY, SLOW, serial_guest

from cpufw.chardev import Chardev, SinkChardev, parse_chardev
from cpufw.core.board import Outcome
from cpufw.core.machine import Machine
from cpufw.errors import ChardevError, UsageError
from cpufw.framework import Framework
from cpufw_x86.pc import PcBoard

HAS_GUESTS = (shutil.which("as") and shutil.which("ld")) or BUILT.exists()
pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not HAS_GUESTS, reason="needs GNU as and ld (binutils)"),
]

ENDED = END[0] << 1 | 1
PATIENCE = 20.0 * AT_ONCE


@contextmanager
def running(framework: Framework, image: Path, *serial: Chardev) -> Iterator[Machine]:
    with framework.machine("pc", serial=serial, kernel=image, memory="8M") as machine:
        machine.start()
        yield machine


def ended(machine: Machine) -> Outcome:
    outcome = machine.wait(PATIENCE)
    assert outcome.reason == "exit", machine.stop() or machine.describe()
    return outcome


class Wire:
    """The other end of a serial port that leads to a socket."""

    def __init__(self) -> None:
        self.theirs, self.ours = socket.socketpair()
        self.ours.settimeout(PATIENCE)

    def chardev(self) -> Chardev:
        return parse_chardev(f"fd:{self.theirs.fileno()}")

    def prompt(self, kind: int) -> None:
        """Wait until the guest is ready, if it has to become that."""
        assert kind != INTERRUPTS or self.read(1) == b">"

    def read(self, length: int) -> bytes:
        got = b""
        while len(got) < length:
            data = self.ours.recv(length - len(got))
            assert data, got
            got += data
        return got


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.ours.close()
    made.theirs.close()


# --- input --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [POLLS, INTERRUPTS])
def test_guest_echoes_what_is_typed(kind: int, framework: Framework, wire: Wire) -> None:
    text = bytes(byte for byte in range(256) if byte != END[0])
    with wire.chardev() as chardev, running(framework, serial_guest(kind), chardev) as machine:
        wire.prompt(kind)
        for number in range(0, len(text), 50):
            wire.ours.sendall(text[number : number + 50])
            assert wire.read(len(text[number : number + 50])) == text[number : number + 50]
        wire.ours.sendall(END)
        assert ended(machine).status == ENDED
        assert wire.read(1) == END


@pytest.mark.parametrize(("kind", "length"), [(POLLS, 24_000), (SLOW, 6_000), (INTERRUPTS, 10_000)])
def test_paste_arrives_whole(kind: int, length: int, framework: Framework, wire: Wire) -> None:
    """More than all buffers on the way hold of it, towards guests that are slower than the paste.

    The slow one has 4 KiB between it and a pipe of 4 KiB.
    """
    text = os.urandom(length).replace(END, b"x")
    wire.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with wire.chardev() as chardev, running(framework, serial_guest(kind), chardev) as machine:
        wire.prompt(kind)
        pid = os.fork()
        if pid == 0:  # its own process: sending and reading must not wait for each other
            try:
                wire.ours.sendall(text + END)
            finally:
                os._exit(0)
        assert wire.read(length + 1) == text + END
        os.waitpid(pid, 0)
        assert ended(machine).status == ENDED


def test_typed_from_python(framework: Framework) -> None:
    heard = bytearray()
    text = bytes(range(32, 127)) * 100
    with running(framework, serial_guest(INTERRUPTS), SinkChardev(heard.extend)) as machine:
        assert isinstance(machine.board, PcBoard)
        while not heard:
            time.sleep(0.01)
        machine.board.type_text(text)
        machine.board.type_text(END)
        assert ended(machine).status == ENDED
    assert heard == b">" + text + END


@pytest.mark.parametrize("kind", [SENDS, SENDS_BLINDLY])
def test_guest_sends_by_interrupts(kind: int, framework: Framework) -> None:
    heard = bytearray()
    with running(framework, serial_guest(kind), SinkChardev(heard.extend)) as machine:
        assert ended(machine).status == 3
    assert heard == b"sent by interrupts, a byte at a time\n"


# --- several ports ------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "port"), list(enumerate(PORTS)))
def test_each_port_leads_where_it_was_told(number: int, port: int, framework: Framework) -> None:
    heard = [bytearray() for _ in range(4)]
    sinks = [SinkChardev(each.extend) for each in heard]
    with running(framework, serial_guest(-port), *sinks) as machine:
        assert ended(machine).status == 1
    assert heard == [b"ok" if at == number else b"" for at in range(4)]


def test_stdio_need_not_be_the_first(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run = ("run", "--serial", f"file:{log}", "--serial", "stdio")
    assert (cpufw(*run, serial_guest(-0x2F8)).stdout, log.read_text()) == ("ok", "")
    assert (cpufw(*run, serial_guest(-0x3F8)).stdout, log.read_text()) == ("", "ok")


def test_five_ports_are_refused() -> None:
    done = cpufw("run", *["--serial", "none"] * 5, serial_guest(POLLS))
    assert done.returncode == 2
    assert done.stderr == "cpufw: 5 serial ports are asked for, a PC has 4\n"
    done = cpufw("run", *["--serial", "stdio"] * 2, serial_guest(POLLS))
    assert done.returncode == 2
    assert "stdio is given twice" in done.stderr


# --- standard input that is no terminal ---------------------------------------------------


def test_input_from_a_pipe_reaches_the_guest() -> None:
    run = ("run", "--timeout", "60", serial_guest(POLLS))
    done = cpufw(*run, input="piped in\x01x\x04")  # Ctrl-A is nothing special in there
    assert (done.returncode, done.stdout) == (ENDED, "piped in\x01x\x04"), done.stderr


def test_end_of_the_input_is_not_the_end_of_the_guest() -> None:
    run = ("run", "--timeout", "1" if AT_ONCE == 1 else "8", serial_guest(POLLS))
    assert cpufw(*run, input="all there is").stdout == "all there is"
    done = cpufw(*run, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (124, "")


# --- a terminal ---------------------------------------------------------------------------

# Makes standard input the controlling terminal, as a login does.
LOGIN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); " + (
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """`cpufw run` in a terminal of its own."""

    def __init__(self, image: Path, *options: str) -> None:
        self._user, self._line = os.openpty()
        self.modes = termios.tcgetattr(self._line)
        os.set_blocking(self._user, False)
        run = command("run", *options, image)
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOGIN, *run],
            stdin=self._line,
            stdout=self._line,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment(),
        )
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self._user, keys)

    def expect(self, text: bytes) -> None:
        """Wait until `text` is on the screen; what was before it is forgotten."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            try:
                self.seen += os.read(self._user, 10_000)
            except BlockingIOError:
                time.sleep(0.005)
        self.seen = self.seen.partition(text)[2]

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self._line)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def ended(self) -> int:
        """The exit status; the terminal must be as it was."""
        status = self.process.wait(PATIENCE)
        assert termios.tcgetattr(self._line) == self.modes
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self._user)
        os.close(self._line)


@contextmanager
def terminal(image: Path, *options: str) -> Iterator[Terminal]:
    made = Terminal(image, *options)
    try:
        made.type(b"?")
        made.expect(b"?")  # by the guest, or by a terminal that is not raw yet
        deadline = time.monotonic() + PATIENCE
        while not made.is_raw:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield made
    finally:
        made.close()


def test_terminal_is_raw_and_the_escape_key_ends_the_run() -> None:
    with terminal(serial_guest(POLLS)) as user:
        user.type(b"\x03\x1a\r\x11\x01\x01\x01a")  # Ctrl-C, Ctrl-Z and all are the guest's
        user.expect(b"\x03\x1a\r\x11\x01\x01")
        user.type(b"\x01h")
        user.expect(b"Ctrl-A x       end the run\r\n")
        user.type(b"\x01b")
        user.expect(b"!")
        user.type(b"\x01")
        user.type(b"x")
        assert user.ended() == 0


def test_terminal_is_restored_when_the_guest_ends() -> None:
    with terminal(serial_guest(POLLS)) as user:
        user.type(END)
        assert user.ended() == ENDED


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_terminal_is_restored_after_a_signal(number: int, status: int) -> None:
    with terminal(serial_guest(POLLS)) as user:
        user.process.send_signal(number)
        assert user.ended() == status


def test_terminal_is_restored_after_a_failure() -> None:
    with terminal(
        serial_guest(POLLS), "--serial", "stdio", "--serial", "none", "--timeout", "1"
    ) as user:
        assert user.ended() == 124
    with terminal(serial_guest(POLLS)) as user:
        assert user.process.stderr is not None
        os.kill(user.process.pid, signal.SIGTERM)
        assert user.ended() == 143
        assert b"terminated" in user.process.stderr.read()


def test_escape_key_works_while_nobody_reads_the_output() -> None:
    """The guest waits, and so does the flush at the end: the user does not have to."""
    image = serial_guest(POLLS)
    reader, writer = os.pipe()
    user, line = os.openpty()
    before = termios.tcgetattr(line)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        process = subprocess.Popen(
            [sys.executable, "-c", LOGIN, *command("run", image)],
            stdin=line,
            stdout=writer,
            stderr=nowhere,
            start_new_session=True,
        )
    try:
        while termios.tcgetattr(line)[3] & termios.ICANON:
            assert process.poll() is None
            time.sleep(0.01)
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        for _ in range(10):
            os.write(user, b"z" * 1000)
        time.sleep(0.5)
        os.write(user, b"\x01x")
        began = time.monotonic()
        assert process.wait(PATIENCE) == 0
        assert time.monotonic() - began < 3 * AT_ONCE
        assert termios.tcgetattr(line) == before
    finally:
        process.kill()
        process.wait()
        for fd in (reader, writer, user, line):
            os.close(fd)


# --- output that goes wrong, or nowhere ---------------------------------------------------


def printing(length: int, tmp_path: Path) -> Path:
    """mov dx, COM1; mov ecx, length; again: mov al, cl; or al, 0x80; out dx, al; dec ecx; jnz."""
    code = bytes.fromhex("baf80366b9") + length.to_bytes(4, "little")
    return (
        Program().raw(code + bytes.fromhex("88c80c80ee6649 75f7")).exit(0).write(tmp_path / "loud")
    )


def test_client_that_does_not_read_does_not_hold_the_guest(
    framework: Framework, tmp_path: Path
) -> None:
    image, path = printing(70_000, tmp_path), tmp_path / "console"
    with parse_chardev(f"unix:{path}") as chardev, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with running(framework, image, chardev) as machine:
            assert ended(machine).status == 1


def test_client_leaves_in_the_middle_and_comes_back(framework: Framework, tmp_path: Path) -> None:
    path = tmp_path / "console"
    with (
        parse_chardev(f"unix:{path}") as chardev,
        running(framework, serial_guest(POLLS), chardev) as machine,
    ):
        for text in (b"one", b"two"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                client.connect(str(path))
                client.sendall(text + b"x" * 5000)
                seen = b""
                while text not in seen:  # behind what was left of the first one's
                    seen += client.recv(1000)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(END)
            assert ended(machine).status == ENDED
    assert not path.exists()


def test_pty_is_named_and_works() -> None:
    run = command("run", "--serial", "pty", serial_guest(POLLS))
    process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stderr is not None
        said = ""
        while "COM1 is " not in said:
            said = process.stderr.readline()
            assert said
        path = said.split()[-1]
        for text in (b"hello", b"again" + END):
            line = os.open(path, os.O_RDWR | os.O_NOCTTY)
            os.write(line, text)
            got = b""
            while len(got) < len(text):
                got += os.read(line, 100)
            assert got == text
            os.close(line)
        assert process.wait(PATIENCE) == ENDED
    finally:
        process.kill()
        process.communicate()


def test_slow_reader_of_standard_output_gets_it_all(tmp_path: Path) -> None:
    image = printing(75_000, tmp_path)
    shell = f"{' '.join(command('run', image))} | (sleep 1; wc -c)"
    done = subprocess.run(
        ["sh", "-c", shell], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.stdout.split() == ["75000"], done.stderr


def test_stuck_reader_does_not_hold_a_machine_that_is_stopped(
    framework: Framework, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    image = printing(80_000, tmp_path)
    with parse_chardev(f"fd:{writer}") as chardev, running(framework, image, chardev) as machine:
        assert isinstance(machine.board, PcBoard)
        while not machine.board.chipset.serial.ports[0].uart.is_full:
            assert machine.wait(0.05).reason == "timeout"
        began = time.monotonic()
        machine.stop()
        assert time.monotonic() - began < 5 * AT_ONCE
    os.close(reader)
    os.close(writer)


def test_full_disk_is_told_by_wait(framework: Framework, tmp_path: Path) -> None:
    image = printing(100, tmp_path)
    with (
        parse_chardev("file:/dev/full") as chardev,
        running(framework, image, chardev) as machine,
        pytest.raises(ChardevError, match="/dev/full cannot be written: No space left"),
    ):
        machine.wait(PATIENCE)


def test_more_ports_than_a_pc_has(framework: Framework, tmp_path: Path) -> None:
    chardevs = [parse_chardev("none") for _ in range(5)]
    with (
        pytest.raises(UsageError, match="a PC has 4"),
        running(framework, printing(1, tmp_path), *chardevs),
    ):
        pass


# --- state --------------------------------------------------------------------------------


def test_port_without_a_thread_and_none_left_behind(framework: Framework) -> None:
    def counts() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(
            list(Path("/proc/self/task").iterdir())
        )

    with running(framework, serial_guest(-0x3F8), parse_chardev("none")) as machine:
        ended(machine)
    before = counts()
    for _ in range(3):
        with (
            parse_chardev("pty") as chardev,
            running(framework, serial_guest(-0x3F8), chardev) as machine,
        ):
            ended(machine)
    assert counts() == before


def test_state_of_a_port_round_trips(framework: Framework) -> None:
    heard: list[bytes] = []
    with running(framework, serial_guest(-0x3F8), SinkChardev(heard.append)) as machine:
        ended(machine)
        assert isinstance(machine.board, PcBoard)
        port = machine.board.chipset.serial.ports[0]
        port.uart.push(b"waiting for the guest")
        state = port.vmstate.save(port)
    with running(framework, serial_guest(POLLS), SinkChardev(heard.append)) as machine:
        assert isinstance(machine.board, PcBoard)
        machine.board.pause()
        port = machine.board.chipset.serial.ports[0]
        port.vmstate.load(port, state)
        assert port.vmstate.save(port) == state
        machine.board.resume()
        machine.board.type_text(END)
        ended(machine)
    assert b"".join(heard) == b"ok" + b"waiting for the guest" + END
