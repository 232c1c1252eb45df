"""How a run ends, and where a guest stands that panicked or died: as QEMU 10.0.2 was measured."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from guest_programs import NO_RAM_HERE, POWER_PORT, RESET_PORT, SLEEP_ENABLE, SPIN, Program
from qmp_direct import Direct
from qmp_guest import PATIENCE, QmpClient, running

from cpufw.errors import CpufwError
from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

PVPANIC_PORT = 0x505
SPINS = Program().raw(SPIN)
PANICS = Program().outb(PVPANIC_PORT, 1).raw(SPIN)
RESETS = Program().outb(RESET_PORT, 6).halt()
TURNS_OFF = Program().outw(POWER_PORT, SLEEP_ENABLE).halt()
DIES = Program().jump(NO_RAM_HERE)
FAULTS = Program().triple_fault()

RESUME, STOP = ("RESUME", None), ("STOP", None)
RESET = ("RESET", {"guest": False, "reason": "host-qmp-system-reset"})
NEEDS_RESET = "Resetting the Virtual Machine is required"


def shutdown(reason: str, *, guest: bool) -> tuple[str, Any]:
    return "SHUTDOWN", {"guest": guest, "reason": reason}


def panicked(action: str) -> tuple[str, Any]:
    return "GUEST_PANICKED", {"action": action}


# --- a machine that stays when its guest has ended ----------------------------------------


class Steered(Direct):
    """Commands to a guest of this process."""

    def status(self) -> str:
        answer = self.run("query-status")
        assert answer["running"] is (answer["status"] == "running")
        return str(answer["status"])

    def news(self) -> list[tuple[str, Any]]:
        """The events since they were last taken."""
        news, self.events = self.events, []
        return news

    def until(self, status: str) -> None:
        """Wait for it."""
        self._wait(lambda: self.status() == status)

    def after(self, name: str) -> list[tuple[str, Any]]:
        """The events since they were last taken, the last of them called `name`."""
        self._wait(lambda: name in [event for event, _ in self.events])
        return self.news()

    def _wait(self, done: Callable[[], bool]) -> None:
        until = monotonic() + PATIENCE
        while not done():
            assert monotonic() < until, (self.status(), self.events)
            sleep(0.01)


@contextmanager
def steered(
    framework: Framework, tmp_path: Path, code: Program, **options: Any
) -> Iterator[Steered]:
    image = code.write(tmp_path / "guest")
    given = {"kernel": image, "entry_mode": "protected", "memory": "4M", "serial": [], **options}
    with framework.machine("pc", cpu="qemu64", **given) as machine:
        client = Steered(machine)
        yield client
        client.monitor.close()


def test_a_guest_that_panicked_is_paused(framework: Framework, tmp_path: Path) -> None:
    with steered(framework, tmp_path, PANICS, on_panic="pause") as client:
        client.run("cont")
        assert client.after("STOP") == [RESUME, panicked("pause"), STOP]
        assert client.status() == "guest-panicked"
        client.run("stop")
        assert (client.status(), client.news()) == ("guest-panicked", [])
        client.run("cont")  # it is not the guest's end: it may have more to say
        assert (client.status(), client.news()) == ("running", [RESUME])
        client.run("system_reset")
        assert client.after("STOP") == [RESET, panicked("pause"), STOP]
        client.until("guest-panicked")
        client.run("system_reset")
        assert (client.status(), client.news()) == ("prelaunch", [RESET])
        client.run("cont")
        assert client.after("STOP") == [RESUME, panicked("pause"), STOP]


def test_a_panic_may_end_the_run_or_change_nothing(framework: Framework, tmp_path: Path) -> None:
    with steered(framework, tmp_path, PANICS, on_panic="report") as client:
        client.run("cont")
        end = shutdown("guest-panic", guest=True)
        assert client.after("SHUTDOWN") == [RESUME, panicked("poweroff"), end]
        assert client.status() == "shutdown"
        with pytest.raises(CpufwError, match=NEEDS_RESET):
            client.run("cont")
        client.run("system_reset")
        assert (client.status(), client.news()) == ("prelaunch", [RESET])
    with steered(framework, tmp_path, PANICS, on_panic="ignore") as client:
        client.run("cont")
        assert client.after("GUEST_PANICKED") == [RESUME, panicked("run")]
        assert client.status() == "running"


@pytest.mark.parametrize("code", [DIES, FAULTS], ids=["emulation", "triple-fault"])
def test_a_guest_that_died_needs_a_reset(
    code: Program, framework: Framework, tmp_path: Path
) -> None:
    with steered(framework, tmp_path, code) as client:
        client.run("cont")
        for _ in range(2):
            assert client.after("STOP") == [RESUME, STOP]
            assert client.status() == "internal-error"
            with pytest.raises(CpufwError, match=NEEDS_RESET):
                client.run("cont")
            client.run("stop")
            assert (client.status(), client.news()) == ("internal-error", [])
            client.run("system_reset")
            assert (client.status(), client.news()) == ("prelaunch", [RESET])
            client.run("cont")  # and it dies once more


def test_a_guest_that_was_stopped_for_good_cannot_be_reset(
    framework: Framework, tmp_path: Path
) -> None:
    with steered(framework, tmp_path, SPINS) as client:
        client.run("cont")
        client.monitor.machine.stop()
        assert client.status() == "shutdown"
        for name, message in (("cont", NEEDS_RESET), ("system_reset", "cannot be reset")):
            with pytest.raises(CpufwError, match=message):
                client.run(name)


@pytest.mark.parametrize(
    ("code", "options"), [(RESETS, {}), (FAULTS, {"on_crash": "reset"})], ids=["asked", "fault"]
)
def test_a_guest_that_shall_not_reboot_ends_with_its_reset(
    code: Program, options: dict[str, str], framework: Framework, tmp_path: Path
) -> None:
    with steered(framework, tmp_path, code, reboot=False, **options) as client:
        client.run("cont")
        end = shutdown("guest-reset", guest=True)
        assert client.after("SHUTDOWN") == [RESUME, end]
        assert client.status() == "shutdown"
        with pytest.raises(CpufwError, match=NEEDS_RESET):
            client.run("cont")
        client.run("system_reset")  # shall not be rebooted by anybody
        end = shutdown("host-qmp-system-reset", guest=False)
        assert (client.status(), client.news()) == ("shutdown", [end])


# --- the end of `cpufw run` ---------------------------------------------------------------


def told_at_the_end(client: QmpClient) -> list[tuple[str, Any]]:
    """The events until the connection ends."""
    try:
        while True:
            client.events.append(client.receive())
    except ConnectionError:
        events = [message for message in client.events if "event" in message]
    return [(event["event"], event.get("data")) for event in events]


@pytest.mark.parametrize("starts", [False, True], ids=["prelaunch", "running"])
def test_sigterm_is_told(starts: bool, tmp_path: Path) -> None:
    image = SPINS.write(tmp_path / "guest")
    with running(tmp_path, "--paused", "--entry-mode", "protected", image=image) as guest:
        with guest.client() as client:
            if starts:
                assert client.execute("cont") == {"return": {}}
            guest.process.send_signal(signal.SIGTERM)
            end = shutdown("host-signal", guest=False)
            assert told_at_the_end(client) == [*([RESUME] if starts else []), end]
        assert guest.process.wait(PATIENCE) == 143


@pytest.mark.parametrize(
    ("code", "told", "status"),
    [
        (TURNS_OFF, [shutdown("guest-shutdown", guest=True)], 0),
        (RESETS, [shutdown("guest-reset", guest=True)], 0),
        (PANICS, [panicked("poweroff"), shutdown("guest-panic", guest=True)], 3),
        (DIES, [STOP], 3),
        (FAULTS, [STOP], 3),
    ],
    ids=["power-off", "reset", "panic", "emulation", "triple-fault"],
)
def test_what_ends_a_guest_is_told_before_the_connection_ends(
    code: Program, told: list[tuple[str, Any]], status: int, tmp_path: Path
) -> None:
    image = code.write(tmp_path / "guest")
    options = ("--paused", "--no-reboot", "--entry-mode", "protected")
    with running(tmp_path, *options, image=image) as guest:
        with guest.client() as client:
            assert client.execute("query-status")["return"]["status"] == "prelaunch"
            client.send(b'{"execute": "cont"}')
            assert told_at_the_end(client) == [RESUME, *told]
        assert guest.process.wait(PATIENCE) == status


@pytest.mark.parametrize("starts", [False, True], ids=["prelaunch", "running"])
def test_system_reset_ends_a_run_that_shall_not_reboot(starts: bool, tmp_path: Path) -> None:
    image = SPINS.write(tmp_path / "guest")
    options = ("--paused", "--no-reboot", "--entry-mode", "protected")
    with running(tmp_path, *options, image=image) as guest:
        with guest.client() as client:
            if starts:
                assert client.execute("cont") == {"return": {}}
            assert client.execute("system_reset") == {"return": {}}
            end = shutdown("host-qmp-system-reset", guest=False)
            assert told_at_the_end(client) == [*([RESUME] if starts else []), end]
        assert guest.process.wait(PATIENCE) == 0
