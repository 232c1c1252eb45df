"""PyPI's `qemu.qmp` package and its `qmp-shell` drive a guest, unmodified."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from qemu.qmp import ExecuteError, Message, QMPClient, Runstate
from qmp_guest import CPU_TYPE, PATIENCE, Guest, running

pytestmark = pytest.mark.kvm


def test_qemu_qmp_connects_executes_and_hears_events(guest: Guest) -> None:
    async def conversation() -> None:
        client = QMPClient("cpufw")
        await client.connect(str(guest.path))
        assert client.greeting is not None
        assert "oob" in client.greeting.QMP.capabilities
        status = await client.execute("query-status")
        assert status == {"running": False, "status": "prelaunch"}
        place = {"socket-id": 1, "core-id": 1, "thread-id": 0}
        with client.listener("DEVICE_DELETED") as deleted:
            await client.execute("device_add", {"driver": CPU_TYPE, "id": "q", **place})
            await client.execute("device_del", {"id": "q"})
            events = [await asyncio.wait_for(deleted.get(), PATIENCE) for _ in range(2)]
        assert events[1]["data"]["device"] == "q"  # behind its local APIC
        with pytest.raises(ExecuteError, match="Device 'q' not found") as error:
            await client.execute("device_del", {"id": "q"})
        assert error.value.error_class == "DeviceNotFound"
        names = await asyncio.gather(*(client.execute("query-name") for _ in range(50)))
        assert names == [{}] * 50
        await client.disconnect()

    asyncio.run(conversation())


def test_qemu_qmp_runs_commands_out_of_band(guest: Guest) -> None:
    async def conversation() -> None:
        client = QMPClient("cpufw")
        await client.connect(str(guest.path))  # it enables every capability that is offered
        oob = client.make_execute_msg("query-commands", oob=True)
        answer = await client.execute_msg(oob)
        assert {"name": "device_add"} in answer  # type: ignore[operator]
        with pytest.raises(ExecuteError, match="does not support OOB"):
            await client.execute_msg(client.make_execute_msg("query-name", oob=True))
        await client.disconnect()

    asyncio.run(conversation())


def test_qemu_qmp_comes_back(guest: Guest) -> None:
    async def conversation() -> None:
        client = QMPClient("cpufw")
        for _ in range(5):
            await client.connect(str(guest.path))
            answer = await client.execute_msg(Message({"execute": "query-version"}))
            assert answer["qemu"]["major"] == 10  # type: ignore[index, call-overload]
            await client.disconnect()
            assert client.runstate == Runstate.IDLE

    asyncio.run(conversation())


def test_qemu_qmp_hands_over_a_file_descriptor(guest: Guest, tmp_path: Path) -> None:
    async def conversation() -> None:
        client = QMPClient("cpufw")
        await client.connect(str(guest.path))
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        client.send_fd_scm(fd)
        os.close(fd)
        added = await client.execute("add-fd", {"opaque": "a file"})
        await client.execute("remove-fd", {"fdset-id": added["fdset-id"]})  # type: ignore[index, call-overload]
        await client.disconnect()

    asyncio.run(conversation())


def test_qemu_qmp_sees_the_end(tmp_path: Path) -> None:
    async def conversation(path: Path) -> None:
        client = QMPClient("cpufw")
        await client.connect(str(path))
        with client.listener("SHUTDOWN") as shutdown:
            await client.execute("quit")
            event = await asyncio.wait_for(shutdown.get(), PATIENCE)
        assert event["data"]["reason"] == "host-qmp-quit"
        with suppress(EOFError):  # how it says that the other side has gone
            await client.disconnect()

    with running(tmp_path) as guest:
        asyncio.run(conversation(guest.path))
        assert guest.process.wait(PATIENCE) == 0


def _shell(guest: Guest, *options: str) -> list[str]:
    return [sys.executable, "-m", "qemu.qmp.qmp_shell", *options, str(guest.path)]


def test_qmp_shell_through_a_pipe(guest: Guest) -> None:
    lines = ["query-status", "device_add driver=nothing", "query-kvm", ""]
    done = subprocess.run(
        _shell(guest), input="\n".join(lines), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert "Connected to QEMU 10.0.2" in done.stdout
    assert '"status": "prelaunch"' in done.stdout
    assert '"class": "GenericError"' in done.stdout
    assert '"enabled": true' in done.stdout


def test_qmp_shell_at_a_terminal_completes_commands(guest: Guest) -> None:
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        _shell(guest), stdin=secondary, stdout=secondary, stderr=secondary,
        env={**os.environ, "TERM": "dumb"},
    )  # fmt: skip
    os.close(secondary)
    shown = ""

    def until(text: str) -> None:
        nonlocal shown
        deadline = time.monotonic() + PATIENCE
        while text not in shown:
            ready, _, _ = select.select([primary], [], [], deadline - time.monotonic())
            assert ready, f"no {text!r} in {shown!r}"
            shown += os.read(primary, 4096).decode()

    try:
        until("(QEMU) ")
        os.write(primary, b"query-hotplugg\t\n")
        until('"vcpus-count"')
        assert "query-hotpluggable-cpus" in shown
        shown = shown.partition("vcpus-count")[2]
        until("(QEMU) ")
        os.write(primary, b"\x04")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(primary)
