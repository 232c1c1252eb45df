"""A guest under `cpufw run --qmp` in a process of its own, and a plain client to talk to it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cpufw_x86

DEMO = Path(cpufw_x86.__file__).parent / "guest" / "demo.bin"
SLOTS = "1,maxcpus=4,sockets=2,cores=2"
CPU_TYPE = "Haswell-x86_64-cpu"
PATIENCE = 30.0  # seconds; the machine may be busy


class QmpClient:
    """A connection at `address`: a path, or host and port. Use it with `with`."""

    def __init__(self, address: Path | tuple[str, int], negotiate: bool = True) -> None:
        family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(address) if isinstance(address, Path) else address)
        self._lines = b""
        self.events: list[dict[str, Any]] = []
        self.greeting = self.receive()
        if negotiate:
            assert self.execute("qmp_capabilities") == {"return": {}}

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Bytes as they are."""
        if fds:
            socket.send_fds(self.socket, [data], fds)
        else:
            self.socket.sendall(data)

    def receive(self) -> Any:
        """The next message. Raises `ConnectionError` at the end, `TimeoutError`."""
        while b"\n" not in self._lines:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError
            self._lines += data
        line, _, self._lines = self._lines.partition(b"\n")
        assert line.endswith(b"\r")
        return json.loads(line.decode("ascii"))

    def reply(self) -> Any:
        """The next message that is no event; events go to `events`."""
        while "event" in (message := self.receive()):
            self.events.append(message)
        return message

    def execute(self, name: str, **arguments: Any) -> Any:
        """The reply to one command; `_` in names of arguments stands for `-`."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.send(json.dumps({"execute": name, "arguments": named}).encode())
        return self.reply()

    def event(self, name: str) -> Any:
        """The next event of that name, one that came already among them."""
        for at, message in enumerate(self.events):
            if message["event"] == name:
                return self.events.pop(at)
        while (message := self.receive()).get("event") != name:
            assert "event" in message, message
        return message

    def deleted(self, device: str) -> Any:
        """The event that `device` is gone; its local APIC's comes before."""
        while (event := self.event("DEVICE_DELETED"))["data"].get("device") != device:
            pass
        return event

    def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for so long."""
        if self._lines:
            return False
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) is None
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> QmpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Guest:
    """A `cpufw run` process; `path` is its QMP socket."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process, self.path = process, path

    def client(self, negotiate: bool = True) -> QmpClient:
        """A new connection."""
        return QmpClient(self.path, negotiate)

    def status(self, field: str) -> int:
        """A number of /proc/PID/status: VmRSS in KiB, Threads."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)
        assert found is not None
        return int(found[1])

    def fds(self) -> int:
        """How many files it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def command(*options: str | Path) -> list[str | Path]:
    """The command line of a guest that makes no output of its own."""
    run = [sys.executable, "-m", "cpufw", "run", "--cpu", "Haswell", "--smp", SLOTS]
    return [*run, "--serial", "none", *options]


@contextmanager
def running(folder: Path, *options: str | Path, image: Path = DEMO) -> Iterator[Guest]:
    """A guest, paused unless `options` say more than that; killed at the end."""
    path = folder / "qmp.sock"
    given = options or ("--paused",)
    process = subprocess.Popen(
        command("--qmp", f"unix:{path}", *given, image), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        until = time.monotonic() + PATIENCE
        while not path.exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.01)
        yield Guest(process, path)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
