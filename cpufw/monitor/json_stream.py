"""JSON values cut out of a stream of bytes, as QMP sends them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from cpufw.monitor.errors import QmpError

MOST_BYTES = 64 << 20
"""The longest value in bytes; QEMU's limit for one token."""
DEEPEST = 1024
"""How deep arrays and objects may nest; QEMU's limit."""

_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')
_SPACE = b" \t\r\n"


class JsonStream:
    """Feed it bytes as they come; it yields the values that are complete.

    What is malformed, too long or too deep comes as a `QmpError` in its place; the stream goes on
    behind it.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = self._depth = 0
        self._in_string = self._skipping = False

    def feed(self, data: bytes) -> Iterator[Any]:
        """The values, or `QmpError`s, that `data` completes."""
        self._data += data
        while (end := self._end()) is not None:
            text, skipped = bytes(self._data[:end]), self._skipping
            del self._data[:end]
            self._at, self._skipping = 0, False
            if not skipped and text.strip(_SPACE):
                yield _parsed(text)
        if not self._skipping and len(self._data) > MOST_BYTES:
            self._skipping = True
            yield QmpError(f"JSON value is longer than {MOST_BYTES >> 20} MiB")
        if self._skipping:
            del self._data[: self._at]
            self._at = 0

    def _end(self) -> int | None:
        """Where the first value of the buffer ends, None while it is incomplete."""
        data = self._data
        while True:
            found = (_INSIDE if self._in_string else _OUTSIDE).search(data, self._at)
            if found is None:
                return self._end_of_scalar()
            at, sign = found.start(), data[found.start()]
            if self._in_string:
                if sign == 0x5C:  # a backslash takes the next character with it
                    if at + 1 == len(data):
                        self._at = at
                        return None
                    self._at = at + 2
                    continue
                self._in_string = False
            elif sign == 0x22:
                self._in_string = True
            elif sign in b"{[":
                self._depth += 1
            else:
                self._depth = max(0, self._depth - 1)
            self._at = at + 1
            if self._depth == 0 and not self._in_string:
                return self._at

    def _end_of_scalar(self) -> int | None:
        # A number or word at the top has no closing sign: the end of its line ends it.
        data = self._data
        if not self._in_string and self._depth == 0:
            newline = data.rfind(b"\n")
            if newline >= 0:
                return newline + 1
        self._at = len(data)
        return None


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        return QmpError(f"JSON value nests deeper than {DEEPEST}")
    except ValueError as error:  # also text that is not UTF-8
        return QmpError(f"JSON parse error, {error}")
