"""The escape key of a terminal."""

from __future__ import annotations

import pytest

from cpufw.chardev.escape import EscapeKeys


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        (b"ls\r\x03\x04", [b"ls\r\x03\x04"]),
        (b"\x01x", ["x"]),
        (b"a\x01bc", [b"a", "b", b"c"]),
        (b"\x01\x01", [b"\x01"]),
        (b"\x01a\x01\x01a", [b"\x01\x01a"]),
        (b"\x01hi\x01c", ["h", b"i", "c"]),
        (b"q\x01qq", [b"qq"]),
        (b"\x01", []),
        (b"", []),
    ],
)
def test_keys_for_the_guest_and_for_cpufw(typed: bytes, parts: list[bytes | str]) -> None:
    assert EscapeKeys().split(typed) == parts


def test_keys_may_come_one_by_one() -> None:
    keys = EscapeKeys()
    typed = [keys.split(bytes([byte])) for byte in b"a\x01\x01b\x01x"]
    assert typed == [[b"a"], [], [b"\x01"], [b"b"], [], ["x"]]
