"""Live migration of kvm guests: they arrive in full, or go on where they were."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from counting_guest import assert_gapless, counting, numbers, wait_for_numbers, write_image
from guest_programs import AT_ONCE, command
from test_guest_hotplug import Guest, running

from cpufw.core.hotplug import SlotState
from cpufw.core.machine import Machine
from cpufw.errors import MigrationInDoubtError, StateError
from cpufw.framework import Framework
from cpufw.snapshot import incoming
from cpufw.snapshot.channel import Address, Channel, Listener, connect
from cpufw.snapshot.machine import read_description
from cpufw.snapshot.migration import Limits, Migration
from cpufw.snapshot.stream import Kind, StreamReader, StreamWriter

pytestmark = pytest.mark.kvm

SHORT = 0.3  # seconds of silence that these tests take for a lost peer


class Destination:
    """Someone at the other end, in a thread: `act` gets the channel."""

    def __init__(self, address: Address, act: Callable[[Channel], object]) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self._listener = Listener(address)
        self._act = act
        self._thread = threading.Thread(target=self._main)
        self._thread.start()

    def _main(self) -> None:
        try:
            with self._listener.accept(patience=60) as channel:
                self.result = self._act(channel)
        except Exception as error:
            self.error = error
        finally:
            self._listener.close()

    def join(self) -> Any:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.result


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return Address(path=str(tmp_path / "s"))


@contextmanager
def arriving(framework: Framework, address: Address, **options: Any) -> Iterator[Destination]:
    """A destination that takes the guest in; its machine is closed in the end."""
    destination = Destination(address, lambda ch: framework.receive_machine(ch, **options))
    try:
        yield destination
    finally:
        machine: Machine | None = destination.join()
        if machine is not None:
            machine.close()


def pretend(channel: Channel, last: str = "") -> StreamWriter:
    """Do as a destination does, without a machine, until `last` was said."""
    writer, reader = StreamWriter(channel.write), StreamReader(channel.read, channel.peer)
    read_description(reader)
    if last == "":
        return writer
    writer.record(Kind.SIGNAL, incoming.READY, b"")
    if last == incoming.READY:
        return writer
    while (record := reader.next())[:2] != (Kind.SIGNAL, incoming.COMPLETE):
        assert record.kind in (Kind.PAGES, Kind.STATE)
    if last == incoming.COMPLETE:
        return writer
    writer.record(Kind.SIGNAL, incoming.LOADED, b"")
    if last == incoming.GO:
        incoming.expect(reader, incoming.GO)
    return writer


# --- it arrives ---------------------------------------------------------------------------


def test_a_guest_moves_while_it_runs(
    framework: Framework, tmp_path: Path, address: Address
) -> None:
    there = bytearray()
    with (
        arriving(framework, address, serial=there.extend) as destination,
        counting(framework, tmp_path, smp="2,maxcpus=3") as (machine, here),
    ):
        report = Migration(machine, address).run()
        assert report.rounds >= 1
        assert report.bytes > 256 << 10  # what the guest writes all the time
        outcome = machine.wait(10)
        assert outcome.reason == "migrated"
        assert str(address) in outcome.message
        with pytest.raises(StateError, match="it is postmigrate, not running"):
            machine.save(tmp_path / "x")
        wait_for_numbers(destination.join(), there)
    assert_gapless(here, there)


def test_a_tcp_connection_does_as_well(framework: Framework, tmp_path: Path) -> None:
    address, there = Address.parse(f"tcp:127.0.0.1:{20000 + os.getpid() % 20000}"), bytearray()
    with (
        arriving(framework, address, serial=there.extend) as destination,
        counting(framework, tmp_path) as (machine, here),
    ):
        Migration(machine, address).run()
        wait_for_numbers(destination.join(), there)
    assert_gapless(here, there)


def test_it_can_move_again_and_again(
    framework: Framework, tmp_path: Path, address: Address
) -> None:
    outputs = [bytearray() for _ in range(4)]
    with counting(framework, tmp_path) as (first, outputs[0]):
        machine = first
        for out in outputs[1:]:
            destination = Destination(
                address, lambda ch, out=out: framework.receive_machine(ch, serial=out.extend)
            )
            Migration(machine, address).run()
            machine.close()
            machine = destination.join()
            wait_for_numbers(machine, out)
        machine.close()
    assert_gapless(*outputs)


def test_hot_plug_works_after_it(framework: Framework, address: Address) -> None:
    after = Guest()
    with (
        arriving(framework, address, serial=after.serial) as destination,
        running(framework, smp="1,maxcpus=4") as before,
    ):
        before.wait_for("cpu 0: online")
        for index in (1, 2):
            before.add(index)
            before.wait_for(f"cpu {index}: online")
            before.wait_for_state(index, SlotState.ONLINE)
        before.machine.device_del("cpu1")
        before.wait_for_state(1, SlotState.EMPTY)
        Migration(before.machine, address).run()
        after.machine = destination.join()
        assert after.machine is not None, destination.error
        states = [slot.state.value for slot in after.machine.slots]
        assert states == ["online", "empty", "online", "empty"]
        after.machine.device_del("cpu2")
        after.wait_for_state(2, SlotState.EMPTY)
        for index in (1, 2, 3):
            after.add(index)
            after.wait_for(f"cpu {index}: online")
        after.machine.powerdown()
        assert after.machine.wait(60).reason == "power-off"


def test_a_cpu_plugged_meanwhile_comes_along(framework: Framework, address: Address) -> None:
    after = Guest()
    with (
        arriving(framework, address, serial=after.serial) as destination,
        running(framework, smp="1,maxcpus=3") as before,
    ):
        before.wait_for("cpu 0: online")
        limits = Limits(bandwidth=200_000)  # half a second for what the guest has
        migration = Migration(before.machine, address, limits)
        errors: list[Exception] = []

        def migrate() -> None:
            try:
                migration.run()
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=migrate)
        thread.start()
        before.add(2, "late")
        thread.join(60)
        assert not errors
        after.machine = destination.join()
        after.wait_for_state(2, SlotState.ONLINE)
        after.machine.device_del("late")
        after.wait_for_state(2, SlotState.EMPTY)


def test_two_processes(tmp_path: Path) -> None:
    address, image = f"unix:{tmp_path / 's'}", write_image(tmp_path)
    there, here = tmp_path / "there", tmp_path / "here"
    destination = subprocess.Popen(
        command("run", "--incoming", address, "--timeout", "1", "--serial", f"file:{there}"),
        stderr=subprocess.PIPE,
        text=True,
    )
    with destination:
        while not Path(tmp_path / "s").exists():
            assert destination.poll() is None, destination.communicate()
            time.sleep(0.02)
        source = subprocess.run(
            command(
                *("run", "--migrate", address, "--timeout", "0.3", "--serial", f"file:{here}"),
                *("--memory", "256M", "--entry-mode", "protected", image),
            ),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        _, errors = destination.communicate(timeout=100)
    assert source.returncode == 0, source.stderr + errors
    assert f"moved to {address} in " in source.stderr
    assert destination.returncode == 124
    assert here.read_bytes()
    assert there.read_bytes()
    assert_gapless(here.read_bytes(), there.read_bytes())


def test_an_idle_guest_hardly_stands_still(
    framework: Framework, tmp_path: Path, address: Address
) -> None:
    image = tmp_path / "idle.bin"
    image.write_bytes(b"\xf4\xeb\xfd")
    downtimes = []
    for _ in range(3):
        with (
            arriving(framework, address),
            framework.machine("pc", kernel=image, entry_mode="protected", memory="256M") as machine,
        ):
            machine.start()
            downtimes.append(Migration(machine, address).run().downtime)
    assert min(downtimes) < AT_ONCE / 20  # the goal is 50 ms


# --- it stays -----------------------------------------------------------------------------


def still_counts(machine: Machine, out: bytearray) -> None:
    """The guest runs here, has missed nothing, and its memory is no longer watched."""
    assert machine.status == "running"
    wait_for_numbers(machine, out)
    machine.stop()
    assert_gapless(out)


@pytest.mark.parametrize(
    "last", ["", incoming.READY, incoming.COMPLETE], ids=["at once", "in memory", "at the end"]
)
@pytest.mark.parametrize("end", ["closes", "is silent", "refuses"])
def test_a_peer_that_goes_loses_nothing(
    framework: Framework, tmp_path: Path, address: Address, last: str, end: str
) -> None:
    def act(channel: Channel) -> None:
        writer = pretend(channel, last)
        if end == "refuses":
            writer.record(Kind.SIGNAL, incoming.REFUSED, b"no room here")
        elif end == "is silent":
            time.sleep(3 * SHORT)

    with counting(framework, tmp_path) as (machine, out):
        ram = machine.board.ram  # type: ignore[attr-defined]
        for start in range(0x40_0000, 0xF0_0000, 1 << 20):  # more than a socket holds
            ram.write(start, os.urandom(1 << 20))
        destination = Destination(address, act)
        message = {
            "closes": "is cut short|is lost",
            "is silent": f"has been silent for {SHORT:g} s",
            "refuses": "refused: no room here",
        }[end]
        with pytest.raises(StateError, match=message):
            Migration(machine, address, Limits(timeout=SHORT)).run()
        destination.join()
        still_counts(machine, out)


def test_cancelled_at_any_point_it_stays(
    framework: Framework, tmp_path: Path, address: Address
) -> None:
    with counting(framework, tmp_path) as (machine, out):
        for delay in (0.0, 0.01, 0.1, 0.3):
            before = len(numbers(out))
            limits = Limits(bandwidth=500_000, downtime=0.02, rounds=1000)
            migration = Migration(machine, address, limits)
            with arriving(framework, address) as destination:
                threading.Timer(delay, migration.cancel).start()
                with pytest.raises(StateError, match="the migration was cancelled"):
                    migration.run()
                destination.join()
                assert isinstance(destination.error, StateError)
            wait_for_numbers(machine, out)
            assert len(numbers(out)) > before
        still_counts(machine, out)


def test_one_that_writes_too_fast_stays_and_says_why(
    framework: Framework, tmp_path: Path, address: Address
) -> None:
    limits = Limits(bandwidth=1_000_000, downtime=0.05, rounds=3)
    with (
        arriving(framework, address) as destination,
        counting(framework, tmp_path) as (machine, out),
    ):
        with pytest.raises(StateError, match=r"in the last of 3 rounds it wrote \d"):
            Migration(machine, address, limits).run()
        destination.join()
        assert isinstance(destination.error, StateError)
        still_counts(machine, out)


def test_a_destination_without_the_source_gives_up(framework: Framework, address: Address) -> None:
    destination = Destination(address, framework.receive_machine)
    with connect(address) as channel:
        StreamWriter(channel.write)
    destination.join()
    assert "cut short" in str(destination.error) or "is lost" in str(destination.error)


def test_nobody_listens(framework: Framework, tmp_path: Path, address: Address) -> None:
    with counting(framework, tmp_path) as (machine, out):
        with pytest.raises(StateError, match=r"cannot connect to unix:.*No such file"):
            Migration(machine, address).run()
        still_counts(machine, out)


def test_in_doubt_it_runs_nowhere_until_somebody_looked(
    framework: Framework, tmp_path: Path, address: Address
) -> None:
    destination = Destination(address, lambda channel: pretend(channel, incoming.GO))
    with counting(framework, tmp_path) as (machine, out):
        migration = Migration(machine, address, Limits(timeout=SHORT))
        with pytest.raises(MigrationInDoubtError, match="resume it here only if it does not run"):
            migration.run()
        destination.join()
        assert machine.status == "paused"
        with pytest.raises(StateError, match="too late to cancel"):
            migration.cancel()
        counted = len(out)
        machine.wait(0.2)
        assert len(out) == counted
        machine.resume()
        still_counts(machine, out)


def test_the_destination_names_the_disks(
    framework: Framework, tmp_path: Path, address: Address
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    drive = f"file={disk},readonly=on"
    with counting(framework, tmp_path, drives=[drive]) as (machine, here):
        with (
            arriving(framework, address) as destination,
            pytest.raises(StateError, match="refused: the guest has 1 drives and 0 are named here"),
        ):
            Migration(machine, address).run()
        wait_for_numbers(machine, here)
        there = bytearray()
        with arriving(framework, address, serial=there.extend, drives=[drive]) as destination:
            Migration(machine, address).run()
            wait_for_numbers(destination.join(), there)
    assert_gapless(here, there)


def test_the_command_line_in_doubt(tmp_path: Path, address: Address) -> None:
    out = tmp_path / "out"
    destination = Destination(address, lambda channel: pretend(channel, incoming.GO))
    arguments = ("run", "--migrate", str(address), "--timeout", "0.2", "--serial", f"file:{out}")
    with subprocess.Popen(
        command(*arguments, "--entry-mode", "protected", "--memory", "16M", write_image(tmp_path)),
        stderr=subprocess.PIPE,
        text=True,
    ) as source:
        assert source.stderr is not None
        while "kill -USR1" not in source.stderr.readline():
            assert source.poll() is None
        destination.join()
        counted = out.stat().st_size
        time.sleep(0.2)
        assert out.stat().st_size == counted
        source.send_signal(signal.SIGUSR1)
        while out.stat().st_size == counted:
            assert source.poll() is None
            time.sleep(0.02)
        source.terminate()
    assert source.returncode == 143
    assert_gapless(out.read_bytes())
