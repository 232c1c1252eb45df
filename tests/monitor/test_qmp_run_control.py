"""Run control over QMP: states, events and refusals as QEMU 10.0.2 was measured to have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qmp_guest import DEMO

import cpufw.monitor.commands
from cpufw.core.machine import Machine
from cpufw.errors import CpufwError
from cpufw.framework import Framework
from cpufw.monitor.command import COMMANDS
from cpufw.monitor.monitor import Monitor

assert cpufw.monitor.commands.__all__
RESET = ("RESET", {"guest": False, "reason": "host-qmp-system-reset"})


class Client:
    """Commands as functions; `events` are name and data of those since they were last taken."""

    def __init__(self, framework: Framework, machine: Machine) -> None:
        self.monitor = Monitor(framework, machine)
        self._events: list[tuple[str, Any]] = []
        self.monitor.subscribe(
            lambda message: self._events.append((message["event"], message.get("data")))
        )

    def __call__(self, name: str, **arguments: Any) -> Any:
        return COMMANDS[name].run(self.monitor, None, arguments)

    def status(self) -> str:
        answer = self("query-status")
        assert answer["running"] is (answer["status"] == "running")
        return str(answer["status"])

    def events(self) -> list[tuple[str, Any]]:
        events, self._events = self._events, []
        return events


@pytest.fixture
def client(framework: Framework) -> Iterator[Client]:
    with framework.machine(
        "pc", cpu="Haswell,check=off", memory="16M", kernel=DEMO, entry_mode="protected", serial=[]
    ) as machine:
        made = Client(framework, machine)
        yield made
        made.monitor.close()


@pytest.mark.kvm
def test_before_the_start_nothing_stops_and_a_reset_is_told(client: Client) -> None:
    client("stop")
    assert (client.status(), client.events()) == ("prelaunch", [])
    client("system_powerdown")
    client("inject-nmi")
    client("system_reset")
    assert (client.status(), client.events()) == ("prelaunch", [("POWERDOWN", None), RESET])


@pytest.mark.kvm
def test_stop_and_cont_are_told_once(client: Client) -> None:
    client("cont")
    client("stop")
    client("stop")
    assert (client.status(), client.events()) == ("paused", [("RESUME", None), ("STOP", None)])
    client("cont")
    client("cont")
    assert (client.status(), client.events()) == ("running", [("RESUME", None)])


@pytest.mark.kvm
def test_a_paused_guest_that_is_reset_waits_for_its_start(client: Client) -> None:
    client("cont")
    client("stop")
    client.events()
    client("system_reset")
    assert (client.status(), client.events()) == ("prelaunch", [RESET])
    client("cont")
    assert (client.status(), client.events()) == ("running", [("RESUME", None)])
    client("system_reset")
    assert (client.status(), client.events()) == ("running", [RESET])


@pytest.mark.kvm
def test_a_guest_that_powered_off_goes_on_after_a_reset_only(client: Client) -> None:
    client("cont")
    client.monitor.machine.board.on_power_off()  # type: ignore[attr-defined]  # as its ACPI does
    assert client.status() == "shutdown"
    assert client.events()[-1] == ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})
    with pytest.raises(CpufwError, match="Resetting the Virtual Machine is required"):
        client("cont")
    client("stop")
    assert (client.status(), client.events()) == ("shutdown", [])
    client("system_reset")
    assert (client.status(), client.events()) == ("prelaunch", [RESET])
    client("cont")
    assert (client.status(), client.events()) == ("running", [("RESUME", None)])


def test_a_machine_without_a_guest_refuses_or_does_nothing(framework: Framework) -> None:
    with framework.machine("pc-q35-10.0", cpu="Haswell", accel=None) as machine:
        client = Client(framework, machine)
        with pytest.raises(CpufwError, match="no board to run a guest on"):
            client("cont")
        with pytest.raises(CpufwError, match="no guest"):
            client("pmemsave", val=0, size=1, filename="/dev/null")
        for name in ("stop", "inject-nmi", "system_reset", "system_powerdown"):
            client(name)
        assert client.status() == "prelaunch"
        assert client("query-memory-size-summary") == {"base-memory": 0, "plugged-memory": 0}
        assert client("query-memdev") == []
        client.monitor.close()


@pytest.mark.kvm
def test_memory_is_saved(client: Client, tmp_path: Path) -> None:
    client("cont")
    client("stop")
    saved = tmp_path / "memory"
    client("pmemsave", val=0, size=3 << 20, filename=str(saved))
    assert saved.stat().st_size == 3 << 20
    assert DEMO.read_bytes()[:64] in saved.read_bytes()
    for name, arguments, message in (
        ("pmemsave", {"val": 1 << 40, "size": 16}, "Invalid addr 0x0000010000000000/size 16"),
        ("memsave", {"val": 0, "size": 16, "cpu-index": 7}, "'cpu-index' expects a CPU number"),
    ):
        with pytest.raises(CpufwError, match=message):
            client(name, filename=str(saved), **arguments)
    with pytest.raises(CpufwError, match="Could not open '/nowhere/x': No such file or directory"):
        client("pmemsave", val=0, size=16, filename="/nowhere/x")


@pytest.mark.kvm
def test_capabilities_are_taken_together_or_not_at_all(client: Client) -> None:
    events = {"capability": "events", "state": True}
    with pytest.raises(CpufwError, match="multifd"):
        client(
            "migrate-set-capabilities",
            capabilities=[events, {"capability": "multifd", "state": True}],
        )
    assert client("query-migrate-capabilities") == [{"capability": "events", "state": False}]
    client("migrate-set-capabilities", capabilities=[events])
    assert client("query-migrate-capabilities") == [events]
