r"""JSON values cut out of a stream of bytes, as a QMP server reads them (qmp-spec, RFC 8259).

Strings may stand in single quotes and know the escape `\'`. A lexical error, such as a control
character, 0xFE or 0xFF, drops what was begun and all until the next line, structural character or
such byte: by it a client brings the stream into a known state. Behind what is too long, all is
dropped until the next line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from cpufw.monitor.errors import QmpError
from cpufw.monitor.json_value import JsonError, JsonValue, decode_number, decode_string

MOST_BYTES = 1 << 20
"""The longest value."""
DEEPEST = 1024
"""How deep arrays and objects may nest; QEMU's limit."""
LONGEST_WORD = 1024
"""The longest number or keyword."""

# What nearly every client sends: an object in one piece, without escapes or single quotes. Python's
# parser takes it whole; all else is read token by token.
_FLAT = rb'(?:[ \t\r\na-z0-9,:.+\-\[\]E]++|"[^"\\\x00-\x1f\x7f-\xff]*+")*+'
_PLAIN = re.compile(rb"\{" + _FLAT + rb"(?:\{" + _FLAT + rb"(?:\{" + _FLAT + rb"\}" + _FLAT
                    + rb")*+\}" + _FLAT + rb")*+\}")  # fmt: skip
_PLAIN_BYTES = 4096

_SPACE = re.compile(rb"[ \t\r\n]*+")
_SKIPPED = re.compile(rb"[^\x00-\x08\n-\x1f{}\[\],:\xfe\xff]*+")
_LINE = re.compile(rb"[^\n\xfe\xff]*+")
_STRUCTURAL = {ord(sign): sign for sign in "{}[],:"}
_QUOTED = {
    0x22: re.compile(rb'(?:[^"\\\x00-\x1f\xfe\xff]++|\\[^\x00-\x1f\xfe\xff])*+'),
    0x27: re.compile(rb"(?:[^'\\\x00-\x1f\xfe\xff]++|\\[^\x00-\x1f\xfe\xff])*+"),
}
_KEYWORD = re.compile(rb"[a-z]++")
_KEYWORDS = {b"true": True, b"false": False, b"null": None}
_NUMBER = re.compile(rb"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:(?<=[0-9])[eE][+-]?[0-9]*)?)?")
_DIGITS = b"0123456789"
_MOST_SHOWN = 200


class JsonStream:
    """Push bytes in as they come; `values` yields what is complete.

    What is malformed, too long or too deep comes as a `QmpError` in its place; the stream goes on
    behind it.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0  # where the next token begins
        self._scanned = 0  # how far a string that has begun there was looked at
        self._skipped: re.Pattern[bytes] | None = None
        self._begin()

    def _begin(self) -> None:
        self._value = JsonValue()
        self._braces = self._brackets = self._length = 0

    def push(self, data: bytes) -> None:
        """Append `data`; nothing is parsed yet."""
        del self._data[: self._at]
        self._scanned = max(0, self._scanned - self._at)
        self._at = 0
        self._data += data

    def values(self) -> Iterator[Any]:
        """The values, or `QmpError`s, that are complete and were not yielded yet.

        It parses one as it is asked for it.
        """
        while self._skip():
            if not self._length and not self._scanned:
                plain = self._plain()
                if plain is not None:
                    yield plain
                    continue
            begin = self._at
            complete = self._token()
            if isinstance(complete, QmpError):
                yield complete
                continue
            self._length += self._at - begin
            pending = 0 if complete else len(self._data) - self._at
            if self._length + pending > MOST_BYTES:
                self._at = len(self._data) if pending else self._at
                yield self._recover("JSON token size limit exceeded", _LINE)
            elif self._braces + self._brackets > DEEPEST:
                self._begin()
                yield QmpError("JSON nesting depth limit exceeded")
            elif not complete:
                return
            elif min(self._braces, self._brackets) < 0 or self._braces == self._brackets == 0:
                value = self._value
                self._begin()
                yield value.result()

    def _skip(self) -> bool:
        """Go to the next token; whether there is something of it."""
        if self._skipped is not None:
            junk = self._skipped.match(self._data, self._at)
            assert junk is not None
            self._at = junk.end()
            if self._at < len(self._data):
                self._skipped = None
        if not self._scanned:
            space = _SPACE.match(self._data, self._at)
            assert space is not None
            self._length += space.end() - self._at if self._length else 0
            self._at = space.end()
        return self._at < len(self._data)

    def _plain(self) -> Any:
        """The value that the next bytes are, if they are such a plain one; None if not."""
        found = _PLAIN.match(self._data, self._at, self._at + _PLAIN_BYTES)
        if found is None:
            return None
        try:
            value = _PLAIN_DECODER.decode(found.group().decode())
        except (ValueError, RecursionError):
            return None
        self._at = found.end()
        return value

    def _token(self) -> bool | QmpError:
        """Take the next token; False if it is not complete yet."""
        first = self._data[self._at]
        if sign := _STRUCTURAL.get(first):
            self._at += 1
            self._braces += (sign == "{") - (sign == "}")
            self._brackets += (sign == "[") - (sign == "]")
            self._value.token(sign)
            return True
        if first in _QUOTED:
            return self._string(_QUOTED[first], first)
        if 0x61 <= first <= 0x7A:
            return self._word(_KEYWORD)
        if first == 0x2D or first in _DIGITS:
            return self._word(_NUMBER)
        return self._stray(self._at + 1)

    def _string(self, inside: re.Pattern[bytes], quote: int) -> bool | QmpError:
        data = self._data
        found = inside.match(data, max(self._scanned, self._at + 1))
        assert found is not None
        end = found.end()
        if end == len(data) or (data[end] == 0x5C and end + 1 == len(data)):
            self._scanned = end
            return False
        self._scanned = 0
        if data[end] != quote:
            return self._stray(end + 2 if data[end] == 0x5C else end + 1)
        text = bytes(data[self._at : end + 1])
        self._at = end + 1
        self._value.token("", decode_string(text))
        return True

    def _word(self, pattern: re.Pattern[bytes]) -> bool | QmpError:
        data = self._data
        found = pattern.match(data, self._at, self._at + LONGEST_WORD)
        assert found is not None
        word, end = found.group(), found.end()
        if len(word) == LONGEST_WORD:
            self._at = end
            return self._recover("JSON token size limit exceeded", _LINE)
        if end == len(data):
            return False
        if pattern is _NUMBER:
            if word[-1] not in _DIGITS or (word.lstrip(b"-") == b"0" and data[end] in _DIGITS):
                return self._stray(end + 1)
            self._value.token("", decode_number(word))
        else:
            unknown = JsonError(f"invalid keyword '{word.decode()}'")
            self._value.token("", _KEYWORDS.get(word, unknown))
        self._at = end
        return True

    def _stray(self, end: int) -> QmpError:
        """A lexical error: no token begins with the bytes until `end`."""
        shown = bytes(self._data[self._at : min(end, self._at + _MOST_SHOWN)])
        self._at = end
        text = shown.partition(b"\x00")[0].decode(errors="replace")
        return self._recover(f"JSON parse error, stray '{text}'")

    def _recover(self, text: str, skipped: re.Pattern[bytes] = _SKIPPED) -> QmpError:
        self._begin()
        self._scanned = 0
        self._skipped = skipped
        return QmpError(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError
    return members


def _number(text: str) -> int | float:
    value = decode_number(text.encode())
    if isinstance(value, JsonError):
        raise value
    return value


_PLAIN_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_number, parse_float=_number)
