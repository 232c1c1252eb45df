"""`fd:` and `file:`: pipes, sockets and files."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest
from peer import started, wait_until

from cpufw.chardev import parse_chardev
from cpufw.errors import ChardevError


def cpu_seconds() -> float:
    return sum(os.times()[:2])


def test_socket_is_both_ways() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, started(parse_chardev(f"fd:{ours.fileno()}")) as guest:
        theirs.sendall(b"typed")
        wait_until(lambda: guest.input == b"typed")
        guest.write(b"printed")
        assert theirs.recv(100) == b"printed"
        assert ours.getblocking()


def test_descriptor_stays_open_and_blocking() -> None:
    reader, writer = os.pipe()
    with started(parse_chardev(f"fd:{writer}")) as guest:
        guest.write(b"x")
        assert os.get_blocking(writer)
    os.write(writer, b"y")
    assert os.read(reader, 10) == b"xy"
    os.close(reader)
    os.close(writer)


def test_input_that_nobody_has_room_for_waits_in_order_and_unread() -> None:
    reader, writer = os.pipe()
    text = os.urandom(60_000)
    with started(parse_chardev(f"fd:{reader}")) as guest:
        guest.room = 1000
        os.write(writer, text)
        wait_until(lambda: guest.room == 0)
        offers, began = guest.offers, cpu_seconds()
        time.sleep(0.2)
        assert guest.offers == offers  # nobody is asked again and again
        assert cpu_seconds() - began < 0.1
        guest.room = 1 << 20
        guest.chardev.resume_input()
        wait_until(lambda: len(guest.input) == len(text))
        assert guest.input == text
        assert os.get_blocking(reader)
    os.close(reader)
    os.close(writer)


def test_end_of_the_input_is_not_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, started(parse_chardev(f"fd:{ours.fileno()}")) as guest:
        theirs.sendall(b"last")
        theirs.shutdown(socket.SHUT_WR)
        wait_until(lambda: guest.input == b"last")
        began = cpu_seconds()
        time.sleep(0.1)
        assert cpu_seconds() - began < 0.05
        guest.write(b"still here")
        assert theirs.recv(100) == b"still here"


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_slow_reader_takes_it_all_in_the_end(kind: str) -> None:
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (each.detach() for each in socket.socketpair())
    text = os.urandom(1 << 20)
    got = bytearray()

    def read() -> None:
        while len(got) < len(text):
            time.sleep(0.001)
            got.extend(os.read(reader, 50_000))

    with started(parse_chardev(f"fd:{writer}")) as guest:
        taken = guest.chardev.write(text)
        assert taken < len(text)  # at once, with nobody reading
        slow = threading.Thread(target=read)
        slow.start()
        guest.write(text[taken:])
        slow.join()
        assert got == text
    os.close(reader)
    os.close(writer)


def test_reader_that_is_gone_is_an_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with started(parse_chardev(f"fd:{writer}")) as guest, pytest.raises(BrokenPipeError):
        guest.write(b"x")
    os.close(writer)


def test_descriptor_for_reading_takes_no_output() -> None:
    reader, writer = os.pipe()
    with started(parse_chardev(f"fd:{reader}")) as guest:
        guest.write(b"nowhere")
    with os.fdopen(reader, "rb", buffering=0), os.fdopen(writer, "wb", buffering=0):
        pass


def test_file_is_emptied_and_written(tmp_path: Path) -> None:
    path = tmp_path / "a,b:c"
    path.write_text("before")
    with started(parse_chardev(f"file:{path}")) as guest:
        guest.write(b"one\n")
        assert path.read_bytes() == b"one\n"  # at once: somebody may follow it
        guest.write(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_full_disk_names_the_file() -> None:
    with started(parse_chardev("file:/dev/full")) as guest:
        with pytest.raises(ChardevError) as failure:
            guest.write(b"x")
        assert str(failure.value) == "/dev/full cannot be written: No space left on device"
