"""The process: how it starts, what it answers, and how it ends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kvm

DEMO = Path(__file__).parents[2] / "plugins" / "x86" / "guest" / "demo.bin"
SECONDS = 60
PROGRAM = [sys.executable, "-c", "import sys; from cpufw.system import main; sys.exit(main())"]
GUEST = [
    "-nodefaults",
    "-display",
    "none",
    "-m",
    "16M",
    "-kernel",
    str(DEMO),
    "-cpu",
    "qemu64,check=off",
]
PROBE = ["-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", "none,accel=kvm:tcg"]


class Client:
    """A QMP client; events that came before an answer are in `events`."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.events: list[dict[str, Any]] = []
        self.greeting = json.loads(self.lines.readline())
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        request = json.dumps({"execute": command, "arguments": arguments})
        self.socket.sendall(request.encode())
        while "return" not in (answer := json.loads(self.lines.readline())):
            assert "error" not in answer, answer
            self.events.append(answer)
        return answer["return"]

    def event(self, name: str) -> dict[str, Any]:
        while not any(each["event"] == name for each in self.events):
            self.events.append(json.loads(self.lines.readline()))
        return next(each for each in self.events if each["event"] == name)

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@contextmanager
def running(arguments: Sequence[str], fds: Sequence[int] = ()) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        pass_fds=fds,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket as libvirt hands it over: it listens before there is anybody to accept."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        yield listener


@contextmanager
def guest(
    tmp_path: Path, *more: str, fds: Sequence[int] = ()
) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """The demonstration guest, and a client at the socket that libvirt would have made."""
    path = tmp_path / "monitor"
    with listening(path) as listener:
        monitor = [
            "-chardev", f"socket,id=charmonitor,fd={listener.fileno()},server=on,wait=off",
            "-mon", "chardev=charmonitor,id=monitor,mode=control",
        ]  # fmt: skip
        with running([*GUEST, *monitor, *more], [listener.fileno(), *fds]) as process:
            client = Client(path)
            try:
                yield process, client
            finally:
                client.close()


def eventually(happened: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(pid: int) -> bool:
    """A daemon belongs to init, which may take its time to notice that it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_daemon_listens_before_its_parent_ends(tmp_path: Path) -> None:
    path, pidfile = tmp_path / "monitor", tmp_path / "pid"
    started = subprocess.run(
        [*PROGRAM, *PROBE, "-qmp", f"unix:{path},server=on,wait=off", "-pidfile", str(pidfile),
         "-daemonize"],
        timeout=SECONDS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (started.returncode, started.stderr) == (0, "")
    pid = int(pidfile.read_text("ascii"))
    try:
        client = Client(path)
        assert client.ask("query-cpus-fast") == []
        assert client.ask("query-target") == {"arch": "x86_64"}
        os.kill(pid, signal.SIGTERM)
        data = client.event("SHUTDOWN")["data"]
        assert data == {"guest": False, "reason": "host-signal"}
        client.close()
        eventually(lambda: ended(pid))
        assert not pidfile.exists()
        assert not path.exists()
    finally:
        if not ended(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_daemon_that_cannot_start_says_why(tmp_path: Path) -> None:
    missing = tmp_path / "kernel"
    done = subprocess.run(
        [*PROGRAM, "-kernel", str(missing), "-daemonize"],
        timeout=SECONDS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"could not open kernel file '{missing}': No such file or directory\n"
    )


def test_a_pid_file_is_had_by_one(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with pidfile.open("w") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        done = subprocess.run(
            [*PROGRAM, *PROBE, "-pidfile", str(pidfile)],
            timeout=SECONDS, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"cannot create PID file: Cannot lock '{pidfile}'" in done.stderr


def test_a_guest_that_powers_off_ends_the_process(tmp_path: Path) -> None:
    with guest(tmp_path) as (process, client):
        eventually(lambda: client.ask("query-status")["status"] == "running")
        time.sleep(0.5)  # until it listens to the button
        client.ask("system_powerdown")
        assert client.event("SHUTDOWN")["data"]["reason"] == "guest-shutdown"
        assert process.wait(SECONDS) == 0


def test_without_shutdown_it_stays_and_can_begin_again(tmp_path: Path) -> None:
    with guest(tmp_path, "-no-shutdown") as (process, client):
        time.sleep(0.5)
        client.ask("system_powerdown")
        client.event("SHUTDOWN")
        assert client.ask("query-status")["status"] == "shutdown"
        client.ask("system_reset")
        assert client.ask("query-status")["status"] == "prelaunch"
        client.ask("cont")
        assert client.ask("query-status")["status"] == "running"
        client.events.clear()
        process.send_signal(signal.SIGTERM)
        assert client.event("SHUTDOWN")["data"]["reason"] == "host-signal"
        assert process.wait(SECONDS) == 0


def test_quit_ends_it_in_any_case(tmp_path: Path) -> None:
    with guest(tmp_path, "-S", "-no-shutdown") as (process, client):
        assert client.ask("query-status")["status"] == "prelaunch"
        client.ask("quit")
        assert process.wait(SECONDS) == 0


def test_clients_come_and_go_at_one_socket(tmp_path: Path) -> None:
    with guest(tmp_path, "-S") as (_process, client):
        other = Client(tmp_path / "monitor")
        client.ask("cont")
        other.event("RESUME")
        other.close()
        assert client.ask("query-status")["running"]


def test_a_serial_port_leads_to_a_file_that_was_handed_over(tmp_path: Path) -> None:
    path = tmp_path / "serial"
    path.write_text("before\n", encoding="ascii")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    serial = [
        "-add-fd", f"set=3,fd={fd},opaque=serial0-source",
        "-chardev", "file,id=charserial0,path=/dev/fdset/3,append=on",
        "-device", '{"driver":"isa-serial","chardev":"charserial0","id":"serial0","index":0}',
    ]  # fmt: skip
    with guest(tmp_path, *serial, fds=[fd]) as (_process, client):
        eventually(lambda: "cpu 0: online" in path.read_text("latin-1"))
        labels = {each["label"]: each["filename"] for each in client.ask("query-chardev")}
        assert labels["charserial0"] == "file:/dev/fdset/3"
        assert labels.keys() == {"charserial0", "charmonitor"}
    os.close(fd)
    assert path.read_text("latin-1").startswith("before\n")


def test_a_serial_port_is_a_terminal(tmp_path: Path) -> None:
    serial = ["-S", "-chardev", "pty,id=charserial0", "-device", "isa-serial,chardev=charserial0"]
    with guest(tmp_path, *serial) as (_process, client):
        (where,) = [e["filename"] for e in client.ask("query-chardev") if "pty" in e["filename"]]
        terminal = os.open(where.removeprefix("pty:"), os.O_RDWR | os.O_NOCTTY)
        client.ask("cont")
        heard = b""
        while b"cpu 0: online" not in heard:
            heard += os.read(terminal, 4096)
        os.close(terminal)


def test_vcpu_threads_have_names(tmp_path: Path) -> None:
    more = ["-name", "guest=a,debug-threads=on", "-smp", "1,maxcpus=2", "-S"]
    with guest(tmp_path, *more) as (process, client):
        place = {"socket-id": 0, "core-id": 1, "thread-id": 0}
        client.ask("device_add", driver="qemu64-x86_64-cpu", id="cpu1", **place)
        threads = {each["cpu-index"]: each["thread-id"] for each in client.ask("query-cpus-fast")}
        for index, thread in threads.items():
            comm = Path(f"/proc/{process.pid}/task/{thread}/comm").read_text("ascii").strip()
            assert comm == f"CPU {index}/KVM"


def test_people_have_a_monitor_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "people"
    with guest(tmp_path, "-S", "-monitor", f"unix:{path},server,nowait") as (_process, client):
        client.ask("query-status")
        with socket.socket(socket.AF_UNIX) as person:
            person.settimeout(SECONDS)
            person.connect(str(path))
            person.sendall(b"info status\n")
            heard = b""
            while b"paused (prelaunch)" not in heard:
                heard += person.recv(4096)


def test_name_and_uuid_are_the_guests(tmp_path: Path) -> None:
    uuid = "74f9acd9-c09d-466d-a82f-cc2c08ff972c"
    with guest(tmp_path, "-S", "-name", "web", "-uuid", uuid) as (_process, client):
        assert client.ask("query-name") == {"name": "web"}
        assert client.ask("query-uuid") == {"UUID": uuid}


@pytest.mark.parametrize("wanted", ["-version", "-help", "-cpu help", "-machine help"])
def test_it_tells_about_itself(wanted: str) -> None:
    done = subprocess.run(
        [*PROGRAM, *wanted.split()], timeout=SECONDS, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = {"-version": "QEMU emulator version 10.0", "-cpu help": "Haswell-v4",
             "-machine help": "pc-i440fx-7.2", "-help": "-chardev"}  # fmt: skip
    assert shown[wanted] in done.stdout
