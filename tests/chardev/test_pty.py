"""`pty`: a terminal that programs come to and leave."""

from __future__ import annotations

import os
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peer import started, wait_until

from cpufw.chardev import parse_chardev
from cpufw.chardev.backlog import BACKLOG
from cpufw.chardev.pty import PtyChardev


def new_pty() -> PtyChardev:
    chardev = parse_chardev("pty")
    assert isinstance(chardev, PtyChardev)
    return chardev


@contextmanager
def connected(path: str) -> Iterator[int]:
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        yield terminal
    finally:
        os.close(terminal)


def read_exactly(terminal: int, length: int) -> bytes:
    got = b""
    while len(got) < length:
        got += os.read(terminal, length - len(got))
    return got


def test_round_trip_and_back_again_unchanged() -> None:
    text = bytes(range(256))
    chardev = new_pty()
    with started(chardev) as guest:
        assert chardev.name == f"pty:{chardev.path}"
        for _ in range(3):  # who leaves may come back
            with connected(chardev.path) as terminal:
                os.write(terminal, text)
                wait_until(lambda: guest.input == text)
                guest.write(text)
                assert read_exactly(terminal, len(text)) == text
            guest.input.clear()
            wait_until(lambda: not chardev.connected)
    assert not Path(chardev.path).exists()


def test_output_with_nobody_there_is_dropped_at_once() -> None:
    chardev = new_pty()
    with started(chardev) as guest:
        began = time.monotonic()
        for _ in range(1000):
            guest.write(b"unheard " * 100)
        assert time.monotonic() - began < 5
        assert chardev.dropped == 800_000
        with connected(chardev.path) as terminal:
            guest.write(b"heard")
            assert read_exactly(terminal, 5) == b"heard"


def test_reader_that_sleeps_finds_the_latest() -> None:
    chardev = new_pty()
    line = b"%07d\n"
    lines = BACKLOG // 8 * 3
    with started(chardev) as guest, connected(chardev.path) as terminal:
        tty.setraw(terminal)
        text = b"".join(line % number for number in range(lines))
        for start in range(0, len(text), 1 << 16):
            guest.write(text[start : start + (1 << 16)])
        assert chardev.dropped > 0
        got = read_exactly(terminal, len(text) - chardev.dropped)
        assert got.endswith(line % (lines - 1))
        assert text.endswith(got[-BACKLOG // 2 :])


def test_nobody_there_costs_nothing() -> None:
    chardev = new_pty()
    with started(chardev):
        with connected(chardev.path):
            pass
        began = sum(os.times()[:2])
        time.sleep(0.3)
        assert sum(os.times()[:2]) - began < 0.1
