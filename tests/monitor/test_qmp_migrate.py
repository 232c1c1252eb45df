"""A guest that QMP clients move: between two processes, and what they are told of it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from counting_guest import assert_gapless, counting, wait_for_numbers, write_image
from guest_programs import command
from qmp_direct import Direct
from qmp_guest import PATIENCE, QmpClient
from test_migration import Destination, arriving

from cpufw.errors import CpufwError
from cpufw.framework import Framework
from cpufw.monitor.errors import QmpError
from cpufw.snapshot.channel import Address, Channel

pytestmark = pytest.mark.kvm


def until_over(ask: Any) -> dict[str, Any]:
    """What `query-migrate` says when the migration has ended."""
    end = time.monotonic() + PATIENCE
    while (info := ask())["status"] in ("setup", "active"):
        assert time.monotonic() < end
        time.sleep(0.01)
    return dict(info)


@contextmanager
def moving(framework: Framework, folder: Path, **options: Any) -> Iterator[tuple[Direct, Any]]:
    """A monitor of a guest that counts, and what it has sent."""
    with counting(framework, folder, **options) as (machine, out):
        qmp = Direct(machine)
        on = [{"capability": "events", "state": True}]
        qmp.run("migrate-set-capabilities", capabilities=on)
        yield qmp, out
        qmp.monitor.close()


def told(qmp: Direct) -> list[str]:
    return [data["status"] for name, data in qmp.events if name == "MIGRATION"]


def test_between_two_processes(tmp_path: Path) -> None:
    address = tmp_path / "s"
    here, there, before, after = (tmp_path / name for name in ("here", "there", "before", "after"))
    boot = ("--entry-mode", "protected", "--memory", "256M", write_image(tmp_path))
    with (
        process(after, address, "--incoming", f"unix:{address}", "--serial", f"file:{there}"),
        process(before, before, "--serial", f"file:{here}", *boot),
    ):
        with QmpClient(before) as qmp:
            assert qmp.execute("query-migrate") == {"return": {}}
            until(lambda: here.stat().st_size > 300)
            on = [{"capability": "events", "state": True}]
            qmp.execute("migrate-set-capabilities", capabilities=on)
            assert qmp.execute("migrate", uri=f"unix:{address}", detach=True) == {"return": {}}
            info = until_over(lambda: qmp.execute("query-migrate")["return"])
            assert info["status"] == "completed", info
            assert info["ram"]["total"] == 256 << 20
            assert info["ram"]["remaining"] == 0
            assert info["ram"]["transferred"] > 64 * 4096  # what the guest writes all the time
            assert 0 <= info["downtime"] <= info["total-time"]
            for status in ("setup", "active", "completed"):
                assert qmp.event("MIGRATION")["data"]["status"] == status
            answer = qmp.execute("query-status")["return"]
            assert (answer["status"], answer["running"]) == ("postmigrate", False)
            for refused in ("cont", "system_reset"):
                assert "error" in qmp.execute(refused)
            again = qmp.execute("migrate", uri=f"unix:{address}")["error"]["desc"]
            assert again == "Can't migrate the vm that was paused due to previous migration"
            assert qmp.execute("quit") == {"return": {}}
        until(lambda: there.stat().st_size > 300)
        with QmpClient(after) as qmp:
            assert qmp.execute("query-status")["return"]["status"] == "running"
            assert qmp.execute("quit") == {"return": {}}
    assert_gapless(here.read_bytes(), there.read_bytes())


@contextmanager
def process(socket: Path, ready: Path, *options: str | Path) -> Iterator[subprocess.Popen[str]]:
    """`cpufw run` with QMP at `socket`, from when there is something at `ready`."""
    started = subprocess.Popen(command("run", "--qmp", f"unix:{socket}", *options))
    try:
        until(ready.exists)
        yield started
        assert started.wait(PATIENCE) == 0
    finally:
        started.kill()
        started.wait()


def until(true: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_cancelled_it_goes_on_here(framework: Framework, tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "s"))
    reached, over = threading.Event(), threading.Event()

    def silent(_channel: Channel) -> None:
        reached.set()
        over.wait(PATIENCE)

    with moving(framework, tmp_path) as (qmp, out):
        end = Destination(address, silent)
        qmp.run("migrate", uri=str(address))
        assert reached.wait(PATIENCE)
        assert qmp.run("query-migrate")["status"] == "active"
        with pytest.raises(QmpError, match="There's a migration process in progress"):
            qmp.run("migrate", uri=str(address))
        qmp.run("migrate_cancel")
        assert until_over(lambda: qmp.run("query-migrate")) == {"status": "cancelled"}
        over.set()
        end.join()
        assert told(qmp) == ["setup", "active", "cancelled"]
        assert qmp.run("query-status")["status"] == "running"
        qmp.run("migrate_cancel")  # nothing is under way
        wait_for_numbers(qmp.monitor.machine, out)
        qmp.monitor.machine.stop()
        assert_gapless(out)


def test_after_a_failure_it_goes_on_here_and_can_try_again(
    framework: Framework, tmp_path: Path
) -> None:
    address = Address(path=str(tmp_path / "s"))
    there = bytearray()
    with moving(framework, tmp_path) as (qmp, here):
        qmp.run("migrate", uri=str(address))
        info = until_over(lambda: qmp.run("query-migrate"))
        assert info["status"] == "failed"
        assert "No such file" in info["error-desc"]
        assert qmp.run("query-status")["status"] == "running"
        with arriving(framework, address, serial=there.extend) as end:
            qmp.run("migrate", uri=str(address))
            assert until_over(lambda: qmp.run("query-migrate"))["status"] == "completed"
            wait_for_numbers(end.join(), there)
        assert told(qmp) == ["setup", "active", "failed", "setup", "active", "completed"]
        assert [name for name, _ in qmp.events if name != "MIGRATION"] == ["STOP"]
    assert_gapless(here, there)


def test_events_are_for_who_asked_for_them(framework: Framework, tmp_path: Path) -> None:
    with moving(framework, tmp_path) as (qmp, _):
        off = [{"capability": "events", "state": False}]
        qmp.run("migrate-set-capabilities", capabilities=off)
        qmp.run("migrate", uri=f"unix:{tmp_path}/nobody")
        assert until_over(lambda: qmp.run("query-migrate"))["status"] == "failed"
        assert qmp.events == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "need either 'uri' or 'channels' argument"),
        ({"uri": "exec:cat"}, "unknown migration protocol: exec:cat"),
        ({"uri": "tcp:nowhere"}, "'tcp:nowhere' is not unix:PATH or tcp:HOST:PORT"),
        ({"uri": "unix:/x", "resume": True}, "Cannot resume if there is no paused migration"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    framework: Framework, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with moving(framework, tmp_path) as (qmp, _):
        with pytest.raises(CpufwError) as caught:
            qmp.run("migrate", **given)
        assert str(caught.value) == message
        assert qmp.run("query-migrate") == {}
        assert told(qmp) == []


def test_a_guest_that_has_not_begun_stays(framework: Framework, tmp_path: Path) -> None:
    with framework.machine(
        "pc", kernel=write_image(tmp_path), memory="16M", entry_mode="protected", serial=[]
    ) as machine:
        qmp = Direct(machine)
        with pytest.raises(QmpError, match="it is prelaunch, not running or paused"):
            qmp.run("migrate", uri="unix:/x")
        qmp.monitor.close()
