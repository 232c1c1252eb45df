"""`parse_chardev`: every form, and what is none."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cpufw.chardev import parse_chardev
from cpufw.errors import ChardevError, UsageError


@pytest.mark.parametrize("text", ["none", "stdio", "pty"])
def test_forms_without_a_path(text: str) -> None:
    with parse_chardev(text) as chardev:
        assert chardev.name.split(":")[0] == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "stdio, pty, unix:PATH"),
        ("serial", "'serial' is not stdio"),
        ("stdio:", "'stdio:'"),
        ("stdio:raw", "'stdio:raw'"),
        ("none:", "'none:'"),
        ("pty:/dev/pts/1", "'pty:/dev/pts/1'"),
        ("file", "'file'"),
        ("file:", "'file:'"),
        ("unix:", "'unix:'"),
        ("unix:,server=on", "has no path"),
        ("unix:/tmp/x,wait=on", "no option 'wait=on', only server=on and wait=off"),
        ("unix:/tmp/x,", "no option ''"),
        ("fd:", "'fd:'"),
        ("fd:-1", "fd:3"),
        ("fd:one", "fd:3"),
        ("fd:\u0663", "fd:3"),
        ("tcp:1", "'tcp:1'"),
        ("mon:stdio", "'mon:stdio'"),
    ],
)
def test_what_is_none_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_chardev(text)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("number", ["99", "99999999999999999999"])
def test_descriptor_that_is_not_open(number: str) -> None:
    with pytest.raises(ChardevError, match="no file is open with this number"):
        parse_chardev(f"fd:{number}")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("mine")
    folder = os.open(tmp_path, os.O_RDONLY)
    for text, words in (
        (f"file:{tmp_path}", "Is a directory"),
        (f"file:{tmp_path}/missing/log", "No such file"),
        (f"unix:{tmp_path}/missing/socket", "No such file"),
        (f"unix:{plain}", "is no socket"),
        (f"unix:{tmp_path}", "is no socket"),
        (f"unix:{tmp_path}/{'x' * 120}", "too long"),
        (f"fd:{folder}", "directory"),
    ):
        with pytest.raises(ChardevError) as refusal:
            parse_chardev(text)
        assert words in str(refusal.value)
        assert text.split(":")[1] in str(refusal.value)
    os.close(folder)
    assert plain.read_text() == "mine"


def test_socket_file_that_nobody_listens_at_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "console"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with parse_chardev(f"unix:{path},server=on,wait=off"):
        with pytest.raises(ChardevError, match="another process listens"):
            parse_chardev(f"unix:{path}")
        assert path.is_socket()
    assert not path.exists()


def test_socket_file_of_somebody_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "console"
    with parse_chardev(f"unix:{path}"):
        path.unlink()
        path.write_text("not ours")
    assert path.read_text() == "not ours"
