"""`unix:`: clients that come, leave, sleep and queue."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from peer import Guest, started, wait_until

from cpufw.chardev import parse_chardev
from cpufw.chardev.backlog import BACKLOG
from cpufw.chardev.unix import UnixChardev


@pytest.fixture
def chardev(tmp_path: Path) -> UnixChardev:
    made = parse_chardev(f"unix:{tmp_path / 'console'}")
    assert isinstance(made, UnixChardev)
    return made


@pytest.fixture
def guest(chardev: UnixChardev) -> Iterator[Guest]:
    with started(chardev) as guest:
        yield guest


def connect(tmp_path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(tmp_path / "console"))
    return client


def receive(client: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length:
        data = client.recv(length - len(got))
        assert data
        got += data
    return got


def test_round_trip(chardev: UnixChardev, guest: Guest, tmp_path: Path) -> None:
    guest.write(b"before anybody came")
    with connect(tmp_path) as client:
        client.sendall(b"typed")
        wait_until(lambda: guest.input == b"typed")
        guest.write(b"printed")
        assert receive(client, 7) == b"printed"
    assert chardev.dropped == len(b"before anybody came")


def test_client_leaves_in_the_middle_and_another_comes(
    chardev: UnixChardev, guest: Guest, tmp_path: Path
) -> None:
    with connect(tmp_path) as client:
        wait_until(lambda: chardev.connected)
        guest.write(b"x" * 600_000)  # more than a socket holds
        receive(client, 1000)
    guest.write(b"nobody")
    wait_until(lambda: not chardev.connected)
    with connect(tmp_path) as client:
        wait_until(lambda: chardev.connected)
        guest.write(b"again")
        assert receive(client, 5) == b"again"  # and nothing of what was not for this one
        client.sendall(b"me too")
        wait_until(lambda: guest.input == b"me too")


def test_second_client_waits_for_the_first(guest: Guest, tmp_path: Path) -> None:
    first = connect(tmp_path)
    second = connect(tmp_path)
    second.sendall(b"second")
    first.sendall(b"first")
    wait_until(lambda: guest.input == b"first")
    first.close()
    wait_until(lambda: guest.input == b"firstsecond")
    guest.write(b"hello")
    assert receive(second, 5) == b"hello"
    second.close()


def test_client_that_sleeps_finds_the_latest(
    chardev: UnixChardev, guest: Guest, tmp_path: Path
) -> None:
    with connect(tmp_path) as client:
        wait_until(lambda: chardev.connected)
        text = b"".join(b"%07d\n" % number for number in range(BACKLOG // 8 * 3))
        began = time.monotonic()
        for start in range(0, len(text), 1 << 16):
            guest.write(text[start : start + (1 << 16)])
        assert time.monotonic() - began < 5
        assert chardev.dropped > BACKLOG
        got = receive(client, len(text) - chardev.dropped)
        assert text.endswith(got[-BACKLOG:])


def test_client_that_only_sends_may_hear_the_answer(
    chardev: UnixChardev, guest: Guest, tmp_path: Path
) -> None:
    with connect(tmp_path) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: guest.input == b"question")
        began = sum(os.times()[:2])
        time.sleep(0.1)
        assert sum(os.times()[:2]) - began < 0.05
        guest.write(b"answer")
        assert receive(client, 6) == b"answer"
    wait_until(lambda: not chardev.connected)


def test_input_of_a_client_that_left_is_not_lost(
    chardev: UnixChardev, guest: Guest, tmp_path: Path
) -> None:
    text = os.urandom(100_000)
    guest.room = 10
    with connect(tmp_path) as client:
        client.sendall(text)
    wait_until(lambda: guest.room == 0)
    began = sum(os.times()[:2])
    time.sleep(0.1)
    assert sum(os.times()[:2]) - began < 0.05
    guest.room = 1 << 20
    guest.chardev.resume_input()
    wait_until(lambda: guest.input == text)
    wait_until(lambda: not chardev.connected)
    with connect(tmp_path) as client:
        wait_until(lambda: chardev.connected)
        guest.write(b"next")
        assert receive(client, 4) == b"next"
