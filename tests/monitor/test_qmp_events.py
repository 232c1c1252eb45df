"""When clients hear of events: around the replies of their commands, and if they do not listen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from qmp_guest import CPU_TYPE, QmpClient

from cpufw.core.hotplug import HotplugEventKind, Slot
from cpufw.core.machine import Machine
from cpufw.framework import Framework
from cpufw.monitor.address import MonitorAddress
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.server import MOST_UNREAD, QmpServer


@pytest.fixture
def machine(framework: Framework) -> Iterator[Machine]:
    with framework.machine(
        "q35", cpu="Haswell", smp="1,maxcpus=2,sockets=2", accel=None
    ) as machine:
        yield machine


@pytest.fixture
def monitor(framework: Framework, machine: Machine, tmp_path: Path) -> Iterator[Monitor]:
    monitor = Monitor(framework, machine)
    server = QmpServer(monitor, [MonitorAddress.parse(f"unix:{tmp_path / 'qmp'}")])
    server.start()
    yield monitor
    server.close()
    monitor.close()


def _plug(client: QmpClient) -> None:
    client.send(
        b'{"execute": "device_add", "arguments": {"driver": "%s", "id": "cpu1",'
        b' "socket-id": 1, "core-id": 0, "thread-id": 0}}' % CPU_TYPE.encode()
    )


def test_what_a_guest_does_during_a_command_comes_after_the_reply(
    machine: Machine, monitor: Monitor, tmp_path: Path
) -> None:
    def meddle(_slot: Slot, _kind: HotplugEventKind) -> str | None:
        # As a vCPU's thread would, while the command is carried out.
        guest = threading.Thread(target=monitor.emit, args=("GUEST_PANICKED", {"action": "run"}))
        guest.start()
        guest.join()
        monitor.emit("RESUME")  # and the command itself
        return None

    machine.hotplug.vetoes.append(meddle)
    with QmpClient(tmp_path / "qmp") as client, QmpClient(tmp_path / "qmp") as bystander:
        _plug(client)
        heard = [client.receive() for _ in range(3)]
        assert [each.get("event", each) for each in heard] == [
            "RESUME",
            {"return": {}},
            "GUEST_PANICKED",
        ]
        # One who waits for no reply hears of both as they happen.
        assert [bystander.receive()["event"] for _ in range(2)] == ["GUEST_PANICKED", "RESUME"]


def test_a_client_that_leaves_its_events_unread_is_let_go(monitor: Monitor, tmp_path: Path) -> None:
    with QmpClient(tmp_path / "qmp") as deaf, QmpClient(tmp_path / "qmp") as other:
        size, sent = 1 << 16, 0
        while sent <= MOST_UNREAD + (1 << 21):  # and what the kernel keeps for it
            monitor.emit("RESET", {"reason": "x" * size})
            assert other.event("RESET")
            sent += size
        heard = 0
        with suppress(ConnectionError):
            while deaf.receive():
                heard += 1
        assert heard < sent // size
        assert other.execute("query-status")["return"]["status"] == "prelaunch"
