"""QMP as its specification says it, with QEMU's words, on real sockets."""

from __future__ import annotations

import ast
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qmp_guest import CPU_TYPE, DEMO, PATIENCE, Guest, QmpClient, command, running

from cpufw.errors import ChardevError, CpufwError, UsageError
from cpufw.monitor.address import MonitorAddress
from cpufw.monitor.errors import QmpError
from cpufw.monitor.json_stream import DEEPEST, MOST_BYTES, JsonStream

MALFORMED = Path(__file__).parents[1] / "data" / "qemu10" / "qmp-malformed.txt"

# Where cpufw answers otherwise than QEMU, and why.
OTHERWISE = {
    r"""b'{"execute":"query-name","id":"\xc0\x80"}\n'""": "overlong UTF-8 is no UTF-8",
    """b'{"foo":1,"bar":2}'""": "QEMU names any of several unexpected members",
    """b'{"id":1,"execute":5,"foo":1}'""": "QEMU checks members in any order",
}


def _values(*chunks: bytes) -> list[object]:
    stream, found = JsonStream(), []
    for chunk in chunks:
        stream.push(chunk)
        found += list(stream.values())
    return [str(value) if isinstance(value, QmpError) else value for value in found]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs", "Cn"))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcé'\"\\\n"), inner),
)


@given(st.lists(JSON, max_size=5), st.data(), st.booleans())
def test_any_chunking_of_values_gives_the_same_values(
    values: list[object], data: st.DataObject, ascii_only: bool
) -> None:
    text = "".join(json.dumps(value, ensure_ascii=ascii_only) + "\n" for value in values).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    chunks = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert _values(*chunks) == [json.loads(json.dumps(value)) for value in values]
    assert _values(*(text[at : at + 1] for at in range(len(text)))) == _values(text)


@given(st.binary(), st.data())
def test_any_chunking_of_junk_gives_the_same_errors(junk: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(junk)))
    assert _values(junk[:cut], junk[cut:]) == _values(junk)


@given(st.binary())
def test_0xff_flushes_whatever_came_before(junk: bytes) -> None:
    stream = JsonStream()
    stream.push(junk + b'\xff\n{"a": 1}')
    assert list(stream.values())[-1] == {"a": 1}


@given(st.text("{}[]\"'\\,: \n0123456789-+.eEtrufalsn\t", max_size=40))
def test_valid_json_in_one_piece_is_read_as_python_reads_it(text: str) -> None:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        assert len(members) == len(pairs)
        return members

    def number(digits: str) -> int | float:  # beyond 64 bits QEMU's are floating-point numbers
        value = int(digits)
        return value if -(1 << 63) <= value < 1 << 64 else float(value)

    try:
        expected = json.loads(text, object_pairs_hook=unique, parse_int=number)
    except (ValueError, AssertionError):
        return
    if "e" not in text.lower():  # 1e999 is no number
        assert _values(text.encode() + b"\n") == [expected]


def test_limits_of_size_and_depth() -> None:
    deepest = b"[" * DEEPEST + b"]" * DEEPEST
    assert isinstance(_values(deepest)[0], list)
    assert _values(b"[" * (DEEPEST + 1) + b"\xff") == [
        "JSON nesting depth limit exceeded",
        "JSON parse error, stray '�'",
    ]
    assert _values(b'"' + b"a" * (MOST_BYTES - 2) + b'"')[0] == "a" * (MOST_BYTES - 2)
    for junk in (b'"' + b"a" * MOST_BYTES, b"[" + b"1," * MOST_BYTES, b"a" * MOST_BYTES):
        first, last = _values(junk, b'\n{"a": 1}')[0], _values(junk, b'\n{"a": 1}')[-1]
        assert first == "JSON token size limit exceeded"
        assert last == {"a": 1}


@pytest.fixture
def client(guest: Guest) -> Iterator[QmpClient]:
    with guest.client() as found:
        yield found


def _asked_qemu() -> list[tuple[str, list[object]]]:
    found: list[tuple[str, list[object]]] = []
    for line in MALFORMED.read_text().splitlines():
        if line.startswith("  "):
            found[-1][1].append(json.loads(line))
        else:
            found.append((line, []))
    return found


@pytest.mark.kvm
def test_malformed_input_is_answered_as_qemu_answers_it(guest: Guest) -> None:
    asked = _asked_qemu()
    assert len(asked) > 150
    different = []
    for text, expected in asked:
        with guest.client() as client:
            client.send(ast.literal_eval(text) + b'\n{"execute": "query-name", "id": "mark"}\n')
            answers = []
            while (answer := client.reply()).get("id") != "mark":
                answers.append(answer)
        if answers != expected:
            different.append(text)
    assert sorted(different) == sorted(OTHERWISE)


@pytest.mark.kvm
def test_greeting_then_only_negotiation_then_commands(guest: Guest) -> None:
    with guest.client(negotiate=False) as client:
        qmp = client.greeting["QMP"]
        assert qmp["capabilities"] == ["oob"]
        early = client.execute("query-name")
        assert early["error"] == {
            "class": "CommandNotFound",
            "desc": "Expecting capabilities negotiation with 'qmp_capabilities'",
        }
        refused = client.execute("qmp_capabilities", enable=["nonsense"])
        assert refused["error"]["class"] == "GenericError"
        assert client.execute("qmp_capabilities") == {"return": {}}
        assert client.execute("query-version")["return"] == qmp["version"]
        again = client.execute("qmp_capabilities")
        assert again["error"]["class"] == "CommandNotFound"


@pytest.mark.kvm
@pytest.mark.parametrize("mark", [0, "x", None, [1, {"a": None}], {"b": 1.5}, False, "é\n"])
def test_id_comes_back_with_answers_and_errors(client: QmpClient, mark: object) -> None:
    for name, kind in (("query-name", "return"), ("nonsense", "error")):
        client.send(json.dumps({"execute": name, "id": mark}).encode())
        answer = client.reply()
        assert answer["id"] == mark
        assert kind in answer


@pytest.mark.kvm
def test_commands_in_one_packet_are_answered_in_order(client: QmpClient) -> None:
    client.send(b"".join(b'{"execute":"query-name","id":%d}' % number for number in range(500)))
    assert [client.reply()["id"] for _ in range(500)] == list(range(500))


@pytest.mark.kvm
def test_a_command_that_comes_byte_by_byte(client: QmpClient) -> None:
    for byte in b"{'execute': 'query-name'} ":
        client.send(bytes([byte]))
    assert client.reply() == {"return": {}}


@pytest.mark.kvm
def test_only_some_commands_run_out_of_band(guest: Guest) -> None:
    with guest.client() as client:
        client.send(b'{"exec-oob": "query-commands", "id": 1}')
        assert client.reply()["error"]["desc"] == "QMP input member 'exec-oob' is unexpected"
    with guest.client(negotiate=False) as client:
        assert client.execute("qmp_capabilities", enable=["oob"]) == {"return": {}}
        client.send(b'{"exec-oob": "query-commands", "id": 1}')
        assert "return" in client.reply()
        client.send(b'{"exec-oob": "query-name", "id": 2}')
        refused = client.reply()
        assert refused["error"]["desc"] == "The command query-name does not support OOB"
        assert refused["id"] == 2
        client.send(b'{"exec-oob": "stop", "execute": "stop"}')
        clash = client.reply()["error"]["desc"]
        assert clash == "QMP input member 'execute' clashes with 'exec-oob'"


@pytest.mark.kvm
def test_reading_stops_behind_eight_waiting_commands(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # a command that writes there waits until somebody reads
    save = {"execute": "pmemsave", "arguments": {"val": 0, "size": 1, "filename": str(pipe)}}
    with running(tmp_path) as guest, guest.client(negotiate=False) as client:
        if "return" not in client.execute("qmp_capabilities", enable=["oob"]):
            pytest.fail("no oob")
        names = {each["name"] for each in client.execute("query-commands")["return"]}
        if "pmemsave" not in names:
            pytest.skip("there is no pmemsave yet")
        client.send(json.dumps(save).encode())
        client.send(b'{"execute": "query-name"}' * 7)
        client.send(b'{"exec-oob": "query-commands", "id": "oob"}')
        assert client.reply()["id"] == "oob"  # overtakes the eight
        client.send(b'{"execute": "query-name"}')
        client.send(b'{"exec-oob": "query-commands", "id": "late"}')
        assert client.silent()
        with guest.client() as other:
            assert other.execute("query-name") == {"return": {}}
        reader = threading.Thread(target=pipe.read_bytes)
        reader.start()
        answers = [client.reply() for _ in range(10)]
        reader.join()
        assert sum(answer.get("id") == "late" for answer in answers) == 1


@pytest.mark.kvm
def test_every_negotiated_client_gets_events(guest: Guest) -> None:
    with guest.client() as one, guest.client() as other, guest.client(negotiate=False) as third:
        added = one.execute(
            "device_add", driver=CPU_TYPE, id="e", socket_id=1, core_id=1, thread_id=0
        )
        assert added == {"return": {}}
        assert one.execute("device_del", id="e") == {"return": {}}
        seen = [each.deleted("e") for each in (one, other)]
        assert seen[0] == seen[1]
        assert set(seen[0]["timestamp"]) == {"seconds", "microseconds"}
        assert third.silent()


@pytest.mark.kvm
def test_two_clients_that_add_to_one_slot_at_once(guest: Guest) -> None:
    for turn in range(10):
        with guest.client() as one, guest.client() as other:
            add = {
                "execute": "device_add",
                "arguments": {"driver": CPU_TYPE, "socket-id": 1, "core-id": 0, "thread-id": 0},
            }
            for name, client in (("a", one), ("b", other)):
                add["arguments"]["id"] = f"{name}{turn}"  # type: ignore[index]
                client.send(json.dumps(add).encode())
            replies = {f"a{turn}": one.reply(), f"b{turn}": other.reply()}
            won = [name for name, reply in replies.items() if reply == {"return": {}}]
            lost = [reply for reply in replies.values() if "error" in reply]
            assert len(won) == len(lost) == 1
            assert len(one.execute("query-cpus-fast")["return"]) == 2
            assert one.execute("device_del", id=won[0]) == {"return": {}}
            one.deleted(won[0])


@pytest.mark.kvm
def test_reconnects(guest: Guest) -> None:
    threads, fds = guest.status("Threads"), guest.fds()
    for _ in range(50):
        with guest.client() as client:
            assert client.execute("query-status")["return"]["status"] == "prelaunch"
    assert guest.status("Threads") == threads
    time.sleep(0.1)
    assert guest.fds() <= fds


@pytest.mark.kvm
def test_file_descriptors_that_clients_hand_over(client: QmpClient, tmp_path: Path) -> None:
    def opened() -> int:
        return os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)

    def execute(text: str, *fds: int) -> dict[str, object]:
        client.send(text.encode(), fds)
        for fd in fds:
            os.close(fd)
        answer: dict[str, object] = client.reply()
        return answer

    missing = {"class": "GenericError", "desc": "No file descriptor supplied via SCM_RIGHTS"}
    assert execute('{"execute": "add-fd"}')["error"] == missing
    first = execute('{"execute": "add-fd", "arguments": {"opaque": "x"}}', opened())["return"]
    second = execute('{"execute": "add-fd", "arguments": {"fdset-id": 7}}', opened())["return"]
    assert (first["fdset-id"], second["fdset-id"]) == (0, 7)  # type: ignore[index]
    sets = client.execute("query-fdsets")["return"]
    assert sets == [
        {"fdset-id": 7, "fds": [{"fd": second["fd"]}]},  # type: ignore[index]
        {"fdset-id": 0, "fds": [{"fd": first["fd"], "opaque": "x"}]},  # type: ignore[index]
    ]
    assert client.execute("remove-fd", fdset_id=7) == {"return": {}}
    gone = client.execute("remove-fd", fdset_id=7)["error"]["desc"]
    assert gone == "File descriptor named 'fdset-id:7' not found"
    assert client.execute("remove-fd", fdset_id=0, fd=first["fd"]) == {"return": {}}  # type: ignore[index]
    assert client.execute("query-fdsets") == {"return": []}
    assert execute('{"execute": "getfd", "arguments": {"fdname": "a"}}', opened()) == {"return": {}}
    assert client.execute("closefd", fdname="a") == {"return": {}}
    gone = client.execute("closefd", fdname="a")["error"]["desc"]
    assert gone == "File descriptor named 'a' not found"


@pytest.mark.kvm
def test_file_descriptors_that_nobody_takes_are_closed(guest: Guest) -> None:
    with guest.client() as client:
        before = guest.fds()
        for _ in range(20):
            read, write = os.pipe()
            client.send(b'{"execute": "query-name"}', [read, write])
            os.close(read)
            os.close(write)
            assert client.reply() == {"return": {}}
        assert guest.fds() <= before + 2
        client.send(b'{"execute": "getfd", "arguments": {"fdname": "kept"}}', [0])
        assert client.reply() == {"return": {}}
    deadline = time.monotonic() + PATIENCE
    while guest.fds() >= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert guest.fds() < before


@pytest.mark.kvm
def test_several_addresses_and_the_port_that_the_system_chose(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        inherited = tmp_path / "inherited"
        listener.bind(str(inherited))
        listener.listen()
        process = subprocess.Popen(
            command(
                "--qmp", f"fd={listener.fileno()}", "--qmp", "tcp:127.0.0.1:0",
                "--qmp", f"unix:{tmp_path}/new/deep/s,server=on,wait=off", "--paused", DEMO,
            ),
            stderr=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            text=True,
        )  # fmt: skip
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if "QMP at tcp" in line)
            port = int(line.rpartition(":")[2])
            path = tmp_path / "new" / "deep" / "s"
            with QmpClient(inherited) as one, QmpClient(("127.0.0.1", port)) as two:
                with QmpClient(path) as three:
                    for client in (one, two, three):
                        assert client.execute("query-name") == {"return": {}}
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
                assert one.execute("quit") == {"return": {}}
            assert process.wait(PATIENCE) == 0
            assert not path.exists()
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("unix:", "not an address"),
        ("", "not an address"),
        ("tcp:1.2.3.4", "not an address"),
        ("tcp:127.0.0.1:65536", "not an address"),
        ("tcp::-1", "not an address"),
        ("fd=", "not an address"),
        ("fd=x", "not an address"),
        ("unix:/x,wait=on", "'wait=on' is not supported"),
        ("unix:/x,server=off", "'server=off' is not supported"),
        ("unix:/x,foo", "'foo' is not supported"),
    ],
)
def test_addresses_that_are_none(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        MonitorAddress.parse(text)


def _refused(text: str) -> str:
    with pytest.raises(CpufwError) as error:
        MonitorAddress.parse(text).listen()
    return str(error.value)


def test_a_tcp_address_that_others_can_reach_needs_to_be_allowed() -> None:
    assert "allow-remote=on" in _refused("tcp:0.0.0.0:0")
    assert "allow-remote=on" in _refused("tcp:[::]:0")
    assert "no monitor can listen at" in _refused("tcp:no.such.host.invalid:0")
    listener = MonitorAddress.parse("tcp:0.0.0.0:0,allow-remote=on").listen()
    assert listener.reachable
    assert listener.address.port > 0
    listener.close()
    listener = MonitorAddress.parse("tcp:localhost:0").listen()
    assert not listener.reachable
    assert f"no monitor can listen at {listener.address}" in _refused(str(listener.address))
    listener.close()


def test_sockets_that_cannot_be_made(tmp_path: Path) -> None:
    assert "too long" in _refused(f"unix:{tmp_path}/{'x' * 110}")
    (tmp_path / "file").write_text("mine")
    assert "is no socket" in _refused(f"unix:{tmp_path}/file")
    assert (tmp_path / "file").read_text() == "mine"
    assert "no folder can be made" in _refused(f"unix:{tmp_path}/file/socket")
    assert "fd 1000000" in _refused("fd=1000000").replace("=", " ")
    with socket.socket() as unbound:
        assert "not a socket that listens" in _refused(f"fd={unbound.fileno()}")


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    first = MonitorAddress(path=path).listen()
    assert "another process listens" in _refused(f"unix:{path}")
    path.unlink()
    second = MonitorAddress(path=path).listen()
    first.close()
    assert path.exists()  # it is the second's
    second.close()
    assert not path.exists()


def test_an_address_in_use_ends_the_run_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(ChardevError):
        MonitorAddress(fd=sys.maxsize >> 33).listen()
    (tmp_path / "file").touch()
    done = subprocess.run(
        command("--qmp", f"unix:{tmp_path}/file", "--paused", DEMO),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "is no socket" in done.stderr.splitlines()[-1]
