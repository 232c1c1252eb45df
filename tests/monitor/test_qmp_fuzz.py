"""Clients that are slow, rude or broken: the guest, other clients and the process stay."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from qmp_guest import CPU_TYPE, PATIENCE, Guest, QmpClient, running

from cpufw.monitor.command import COMMANDS, Command
from cpufw.monitor.server import CONGESTED, MOST_CLIENTS, MOST_UNREAD
from cpufw.monitor.session import Session

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(
        "QEMU TCG CPU" in Path("/proc/cpuinfo").read_text(),
        reason="the monitor's input is the same on every host; an emulated one is too slow",
    ),
]

SEED = 20
FUZZED = 4000  # streams; about 60 bytes each, mutated from commands
MIB = 1 << 20
_PLACE = {"socket-id": 1, "core-id": 1, "thread-id": 0}
_SPIN = b"\xfa\xeb\xfe"  # cli; jmp $


@pytest.fixture
def witness(guest: Guest) -> Iterator[QmpClient]:
    """Another client, that must be served all the same."""
    with guest.client() as client:
        yield client
        assert client.execute("query-status")["return"]["status"] == "prelaunch"


def _seconds_to_answer(client: QmpClient) -> float:
    before = time.monotonic()
    assert client.execute("query-name") == {"return": {}}
    return time.monotonic() - before


def _mutated(choose: random.Random, commands: list[bytes]) -> bytes:
    data = bytearray(b"".join(choose.choices(commands, k=choose.randint(1, 4))))
    for _ in range(choose.randint(0, 6)):
        at = choose.randrange(len(data) + 1)
        match choose.randrange(4):
            case 0:
                data[at : at + choose.randint(1, 8)] = b""
            case 1:
                data[at:at] = choose.randbytes(choose.randint(1, 4))
            case 2:
                data[at:at] = choose.choice([b"{", b"}", b"[", b'"', b"'", b"\\", b"\xff", b"\0"])
            case 3:
                data[at : at + 1] = bytes([choose.randrange(256)])
    return bytes(data)


def test_a_byte_fuzzer_finds_no_way_to_break_it(guest: Guest, witness: QmpClient) -> None:
    choose = random.Random(SEED)
    harmless = [name for name in COMMANDS if name.startswith("query-")]
    commands = [json.dumps({"execute": name, "id": 1}).encode() for name in harmless]
    commands += [
        b'{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}',
        b'{"exec-oob": "query-commands", "id": [1, {"a": null}]}',
        b'{"execute": "device_add", "arguments": {"driver": "x", "id": "y", "core-id": 1.5e1}}',
        b'{"execute": "device_del", "arguments": {"id": "none"}}',
        b"{'execute': 'getfd', 'arguments': {'fdname': 'a\\u00e9\\''}}",
    ]
    memory = guest.status("VmRSS")
    answered = 0
    for _ in range(FUZZED):
        with guest.client(negotiate=choose.random() < 0.8) as client:
            data = _mutated(choose, commands)
            for begin in range(0, len(data), 50) if choose.random() < 0.3 else [0]:
                client.send(data[begin : begin + 50] if begin or len(data) > 50 else data)
            client.send(b'\xff\n{"execute": "query-name", "id": "last"}')
            while client.reply().get("id") != "last":
                answered += 1
    assert answered > FUZZED
    assert _seconds_to_answer(witness) < PATIENCE
    assert guest.status("VmRSS") < memory + 32 * 1024


def test_random_bytes(guest: Guest, witness: QmpClient) -> None:
    choose = random.Random(SEED)
    for _ in range(50):
        with guest.client() as client:
            client.send(choose.randbytes(4096) + b'\xff\n{"execute": "query-name", "id": "last"}')
            while client.reply().get("id") != "last":
                pass
    assert _seconds_to_answer(witness) < PATIENCE


@pytest.mark.parametrize("junk", [b"a", b'"a', b"[1,", b'{"a":', b" ", b"\x01", b"1"])
def test_a_hundred_megabytes_without_a_newline(
    guest: Guest, witness: QmpClient, junk: bytes
) -> None:
    block = junk * (MIB // len(junk)) if len(junk) == 1 else junk[-1:] * MIB
    before = guest.status("VmRSS")
    longest = 0.0
    with guest.client() as client:
        client.socket.settimeout(0.05)
        client.send(junk)
        sent = 0
        until = time.monotonic() + 10
        with suppress(TimeoutError):  # it takes no more until its answers are read
            while sent < 100 * MIB and time.monotonic() < until:
                sent += client.socket.send(block)
                if sent % (20 * MIB) < MIB:
                    longest = max(longest, _seconds_to_answer(witness))
    assert longest < PATIENCE
    assert guest.status("VmRSS") < before + (MOST_UNREAD + 24 * MIB) // 1024


def test_half_a_command_and_a_disconnect(guest: Guest, witness: QmpClient) -> None:
    for _ in range(20):
        with guest.client() as client:
            client.send(b'{"execute": "device_add", "arguments": {"driver"')
    assert _seconds_to_answer(witness) < PATIENCE


def test_a_disconnect_in_the_middle_of_device_add_plugs_all_or_nothing(
    guest: Guest, witness: QmpClient
) -> None:
    for turn in range(20):
        add = {"driver": CPU_TYPE, "id": f"d{turn}", **_PLACE}
        with guest.client() as client:
            client.send(json.dumps({"execute": "device_add", "arguments": add}).encode())
        # In turn with others on the worker thread: behind the plug, if it has begun.
        slots = witness.execute("query-hotpluggable-cpus")["return"]
        witness.execute("device_del", id="none")
        present = [slot for slot in slots if slot.get("qom-path", "").endswith(f"/d{turn}")]
        deleted = witness.execute("device_del", id=f"d{turn}")
        if deleted == {"return": {}}:
            witness.deleted(f"d{turn}")
        else:
            assert present == []
        assert len(witness.execute("query-cpus-fast")["return"]) == 1


def test_ten_thousand_pipelined_commands(guest: Guest, witness: QmpClient) -> None:
    with guest.client() as client:
        client.socket.setblocking(False)
        text = b'{"execute": "query-cpus-fast"}' * 10_000
        sent = answers = 0
        longest = 0.0
        while answers < 10_000:
            with suppress(BlockingIOError):
                sent += client.socket.send(text[sent : sent + MIB])
            with suppress(BlockingIOError):
                answers += client.socket.recv(1 << 16).count(b"\r\n")
            if answers % 1000 < 10:
                longest = max(longest, _seconds_to_answer(witness))
    assert longest < PATIENCE


def test_a_client_that_never_reads_is_held_and_then_dropped(
    guest: Guest, witness: QmpClient
) -> None:
    with guest.client() as deaf:
        before = guest.status("VmRSS")
        deaf.socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                deaf.send(b'{"execute": "query-qmp-schema"}' * 100)
        time.sleep(0.2)
        assert _seconds_to_answer(witness) < PATIENCE
        assert guest.status("VmRSS") < before + 4 * CONGESTED // 1024 + 16 * 1024
        deaf.socket.setblocking(True)
        taken = 0
        while taken < 4 * CONGESTED:  # it reads again, and is served again
            taken += len(deaf.socket.recv(1 << 20))


def test_a_flood_of_connections(guest: Guest, witness: QmpClient) -> None:
    threads, fds = guest.status("Threads"), guest.fds()
    flood = []
    for _ in range(3 * MOST_CLIENTS):
        each = socket.socket(socket.AF_UNIX)
        each.setblocking(False)
        with suppress(BlockingIOError):
            each.connect(str(guest.path))
        flood.append(each)
    assert _seconds_to_answer(witness) < PATIENCE
    assert guest.fds() <= fds + MOST_CLIENTS
    for each in flood:
        each.close()
    with guest.client() as client:
        assert client.execute("query-name") == {"return": {}}
    assert guest.status("Threads") == threads


def test_a_thousand_plugs_and_unplugs_leave_nothing_behind(guest: Guest) -> None:
    def cycles(number: int) -> None:
        for turn in range(number):
            name = f"c{turn}"
            assert client.execute("device_add", driver=CPU_TYPE, id=name, **place) == {"return": {}}
            assert client.execute("device_del", id=name) == {"return": {}}
            client.deleted(name)

    place = {name.replace("-", "_"): number for name, number in _PLACE.items()}
    with guest.client() as client:
        cycles(200)
        before = guest.status("VmRSS"), guest.status("Threads"), guest.fds()
        cycles(800)
        memory, threads, fds = guest.status("VmRSS"), guest.status("Threads"), guest.fds()
    assert (threads, fds) == before[1:]
    assert memory < before[0] + 1024


def test_the_monitor_answers_while_the_guest_spins(tmp_path: Path) -> None:
    image = tmp_path / "spin.bin"
    image.write_bytes(_SPIN)
    with running(tmp_path, "--paused", image=image) as guest, guest.client() as client:
        assert client.execute("cont") == {"return": {}}
        client.event("RESUME")
        answers = [_seconds_to_answer(client) for _ in range(200)]
        assert sorted(answers)[100] < 0.1
        assert client.execute("query-status")["return"]["status"] == "running"
        assert client.execute("stop") == {"return": {}}
        assert client.execute("query-status")["return"]["status"] == "paused"
        assert client.execute("cont") == {"return": {}}
        assert client.execute("quit") == {"return": {}}
        assert guest.process.wait(PATIENCE) == 0


class Wire:
    """The far end of a session: what it wrote."""

    congested = False

    def __init__(self) -> None:
        self.written: list[dict[str, object]] = []

    def write(self, data: bytes) -> None:
        self.written.append(json.loads(data))

    def read_on(self, on: bool) -> None:
        """Nothing is read here."""


def test_a_defect_of_a_command_is_an_error_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(monitor: object) -> None:  # noqa: ARG001
        raise ZeroDivisionError("by zero")

    monkeypatch.setitem(COMMANDS, "x-broken", Command("x-broken", broken))

    async def conversation() -> None:
        session = Session(None, wire)  # type: ignore[arg-type]
        sent = b'{"execute": "qmp_capabilities"}{"execute": "x-broken"}{"execute": "nonsense"}'
        session.feed(sent)
        while len(wire.written) < 3:
            await asyncio.sleep(0)

    wire = Wire()
    asyncio.run(conversation())
    assert [sorted(answer) for answer in wire.written] == [["return"], ["error"], ["error"]]
    assert wire.written[1]["error"] == {
        "class": "GenericError",
        "desc": "cpufw failed: ZeroDivisionError: by zero",
    }
