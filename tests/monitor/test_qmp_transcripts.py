"""Every conversation that QEMU had is had with cpufw's monitor; differences have a reason."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from guest_compiler import image_of
from linux_guest import LinuxGuest
from qmp_transcripts import Turn, transcript
from ruamel.yaml import YAML

from cpufw.core.machine import Machine
from cpufw.framework import Framework
from cpufw.monitor.address import MonitorAddress
from cpufw.monitor.command import COMMANDS
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.server import QmpServer

Q35 = "1,maxcpus=4,sockets=2,cores=2,threads=1"
DIFFERENCES = Path(__file__).with_name("transcript_differences.yaml")


class Client:
    """A QMP client that has negotiated; `events` are those that came, without their time."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._data = b""
        self.events: list[dict[str, Any]] = []
        self._next()
        self.ask("qmp_capabilities", {})

    def _next(self, timeout: float = 20) -> dict[str, Any] | None:
        while b"\n" not in self._data:
            if not select.select([self._socket], [], [], timeout)[0]:
                return None
            received = self._socket.recv(1 << 16)
            if not received:
                return None
            self._data += received
        line, _, self._data = self._data.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def ask(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The reply."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while message := self._next():
            if "event" not in message:
                return message
            self._keep(message)
        raise AssertionError(f"no reply to {command}")

    def wait_events(self, count: int, timeout: float) -> list[dict[str, Any]]:
        """All events since the last call, once there are `count` of them or time is up."""
        until = time.monotonic() + timeout
        while len(self.events) < count and (left := until - time.monotonic()) > 0:
            if message := self._next(left):
                self._keep(message)
        while message := self._next(0):
            self._keep(message)
        events, self.events = self.events, []
        return events

    def _keep(self, message: dict[str, Any]) -> None:
        del message["timestamp"]
        self.events.append(message)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def monitored(framework: Framework, machine: Machine, folder: Path) -> Iterator[Client]:
    address = MonitorAddress.parse(f"unix:{folder / 'qmp'}")
    monitor = Monitor(framework, machine)
    server = QmpServer(monitor, [address])
    server.start()
    try:
        with closing(Client(folder / "qmp")) as client:
            yield client
    finally:
        server.close()
        monitor.close()


class Replay:
    """One transcript against one machine; `differences` are those that were found, by turn."""

    def __init__(self, name: str, client: Client, patience: float = 0.2) -> None:
        self.listed = YAML(typ="safe").load(DIFFERENCES)[name] or {}
        self.turns, self._client, self._patience = transcript(name), client, patience
        self.found: dict[str, str] = {}
        self._threads: dict[int, int] = {}

    def run(self) -> None:
        for turn in self.turns:
            self.take(turn)
        self.judge()

    def take(self, turn: Turn) -> None:
        listed = self._listed(turn)
        if turn.command not in COMMANDS and turn.command == "human-monitor-command":
            return
        reply = self._client.ask(turn.command, turn.arguments)
        if "return" in reply and "return" in (turn.reply or {}):
            self._learn_threads(reply["return"], turn.reply["return"])  # type: ignore[index]
        expected = self._expected(turn.reply)
        if turn.reply is not None and _unordered(reply) != _unordered(expected):
            self.found[turn.name] = f"{turn.command} {turn.arguments}: {reply}, QEMU: {expected}"
        count = listed.get("events", len(turn.events))
        events = self._client.wait_events(count, 30 if count else self._patience)
        if events != self._expected(turn.events):
            self.found.setdefault(turn.name, "")
            self.found[turn.name] += f" events {events}, QEMU: {turn.events}"
        for command, arguments in (
            item for step in listed.get("then", ()) for item in step.items()
        ):
            again = self._client.ask(command, arguments)
            assert "return" in again, (turn.name, command, again)
            self._client.wait_events(1, self._patience)

    def _listed(self, turn: Turn) -> dict[str, Any]:
        entry = self.listed.get(turn.name) or self.listed.get(turn.command) or {}
        return entry if isinstance(entry, dict) else {"why": entry}

    def judge(self) -> None:
        """Fail for differences that are not listed, and for listed ones that are not there."""
        commands = {turn.name: turn.command for turn in self.turns}
        new = {
            name: said
            for name, said in self.found.items()
            if name not in self.listed and commands[name] not in self.listed
        }
        seen = {*self.found, *(commands[name] for name in self.found)}
        gone = [name for name in self.listed if name not in seen and name != "aliases"]
        assert not new, "\n".join(f"{name}: {said}" for name, said in new.items())
        assert not gone, f"listed, and no difference any more: {gone}"

    def _expected(self, reply: Any) -> Any:
        text = json.dumps(reply)
        for alias in self.listed.get("aliases", ()):
            text = text.replace(alias["qemu"], alias["cpufw"])
        for theirs, ours in self._threads.items():
            text = text.replace(f"thread_id={theirs}\\r", f"thread_id={ours}\\r")
        return self._with_threads(json.loads(text))

    def _with_threads(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._with_threads(each) for each in value]
        if isinstance(value, dict):
            return {
                name: self._threads.get(each, each)
                if name == "thread-id" and isinstance(each, int)
                else self._with_threads(each)
                for name, each in value.items()
            }
        return value

    def _learn_threads(self, ours: Any, theirs: Any) -> None:
        # The host numbers threads: what is compared is which CPU has which.
        if not isinstance(ours, list) or not isinstance(theirs, list):
            return
        for one, other in zip(ours, theirs, strict=False):
            if isinstance(one, dict) and "target" in one and "thread-id" in other:
                self._threads.setdefault(other["thread-id"], one["thread-id"])


def _unordered(reply: Any) -> Any:
    """The same, with an object's properties in one order: QEMU's have none."""
    shown = reply.get("return")
    if isinstance(shown, list) and all(set(each) == {"name", "type"} for each in shown):
        return {"return": sorted(shown, key=lambda each: each["name"])}
    return reply


@pytest.mark.kvm
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("q35-kvm-errors", {}),
        ("pc-2.6-kvm", {}),
        (
            "q35-kvm-numa",
            {
                "memory": "128M",
                "numa": (
                    "node,nodeid=0,mem=64M",
                    "node,nodeid=1,mem=64M",
                    "cpu,node-id=0,socket-id=0",
                    "cpu,node-id=1,socket-id=1",
                ),
            },
        ),
    ],
)
def test_before_the_guest_starts(
    framework: Framework, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    with (
        framework.machine("pc", cpu="Haswell", smp=Q35, **options) as machine,
        monitored(framework, machine, tmp_path) as client,
    ):
        Replay(name, client).run()


@pytest.mark.parametrize(
    ("name", "machine_type", "cpu", "smp"),
    [
        ("microvm-kvm", "microvm", "Haswell", "1,maxcpus=4,sockets=1,cores=4"),
        ("ppc64-tcg", "pseries", None, "2,maxcpus=8,sockets=2,cores=2,threads=2"),
        ("s390x-tcg", "s390-ccw-virtio", None, "1,maxcpus=4"),
        ("aarch64-tcg", "virt", "cortex-a57", "1,maxcpus=4"),
    ],
)
def test_machines_that_describe_cpus(
    framework: Framework,
    tmp_path: Path,
    name: str,
    machine_type: str,
    cpu: str | None,
    smp: str,
) -> None:
    with (
        framework.machine(machine_type, cpu=cpu, smp=smp) as machine,
        monitored(framework, machine, tmp_path) as client,
    ):
        Replay(name, client, patience=0).run()


@pytest.mark.kvm
@pytest.mark.parametrize("name", ["q35-kvm-ospm-accept", "q35-kvm-ospm-refuse"])
def test_with_a_guest_that_answers(framework: Framework, tmp_path: Path, name: str) -> None:
    refuse = name.endswith("refuse")
    image = image_of("hotplug", "ost=1" + (" refuse=1" if refuse else " rounds=100"))
    output = bytearray()
    with (
        framework.machine(
            "pc",
            cpu="Haswell,check=off",
            smp=Q35,
            memory="64M",
            kernel=image,
            serial=output.extend,
        ) as machine,
        monitored(framework, machine, tmp_path) as client,
    ):
        machine.start()
        until = time.monotonic() + 60
        while b"waiting" not in output:
            assert time.monotonic() < until, output
            time.sleep(0.01)
        client.wait_events(1, 1)
        Replay(name, client).run()


@pytest.mark.kvm
def test_with_linux(framework: Framework, tmp_path: Path) -> None:
    with (
        LinuxGuest(framework, "Haswell,check=off", Q35) as guest,
        monitored(framework, guest.machine, tmp_path) as client,
    ):
        guest.start()
        client.wait_events(1, 1)
        try:
            Replay("q35-tcg-linux", client).run()
        except AssertionError:
            guest.skip_if_deadlocked()
            raise
