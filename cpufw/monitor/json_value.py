"""A JSON value built token by token, with the words of QEMU's errors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from cpufw.monitor.errors import QmpError

_SEGMENT = re.compile(rb"[^\\]+|\\.", re.DOTALL)
_HEXADECIMAL = re.compile(rb"\\u([0-9A-Fa-f]{4})")
_ESCAPES = {
    b'\\"': '"', b"\\'": "'", b"\\\\": "\\", b"\\/": "/", b"\\b": "\b", b"\\f": "\f",
    b"\\n": "\n", b"\\r": "\r", b"\\t": "\t",
}  # fmt: skip
_NONCHARACTER = re.compile(
    "[\ufdd0-\ufdef" + "".join(f"{chr(plane << 16 | 0xFFFE)}-{chr(plane << 16 | 0xFFFF)}"
                               for plane in range(17)) + "]"
)  # fmt: skip
_LEAST, _BEYOND = -(1 << 63), 1 << 64


class JsonError(ValueError):
    """What is wrong with a value."""


class JsonValue:
    """One value: hand it `token`s until the brackets are balanced, then take the `result`.

    The first error is kept; the tokens behind it are ignored.
    """

    def __init__(self) -> None:
        self._expected: Callable[[str, Any], None] = self._value
        self._error: JsonError | None = None
        self._containers: list[tuple[Any, str]] = []  # and the key under which each one goes
        self._key = ""
        self._result: Any = None

    def token(self, sign: str, value: Any = None) -> None:
        """The next token: a structural character, or "" with a scalar `value`.

        A `JsonError` for `value` stands for a scalar that is malformed.
        """
        if self._error is None:
            try:
                if isinstance(value, JsonError):
                    raise value
                self._expected(sign, value)
            except JsonError as error:
                self._error = error

    def result(self) -> Any:
        """The value, or a `QmpError` if it is malformed."""
        if self._error is not None:
            return QmpError(f"JSON parse error, {self._error}")
        return self._result

    def _value(self, sign: str, value: Any) -> None:
        if sign == "{":
            self._containers.append(({}, self._key))
            self._expected = self._key_or_end
        elif sign == "[":
            self._containers.append(([], self._key))
            self._expected = self._element_or_end
        elif sign:
            raise JsonError("expecting value")
        else:
            self._finish(value, self._key)

    def _element_or_end(self, sign: str, value: Any) -> None:
        if sign == "]":
            self._pop()
        else:
            self._value(sign, value)

    def _key_or_end(self, sign: str, value: Any) -> None:
        if sign == "}":
            self._pop()
        else:
            self._object_key(sign, value)

    def _object_key(self, sign: str, value: Any) -> None:
        if sign in ("", "{", "[") and not isinstance(value, str):
            raise JsonError("key is not a string in object")
        if sign:
            raise JsonError("expecting value")
        self._key = value
        self._expected = self._colon

    def _colon(self, sign: str, value: Any) -> None:  # noqa: ARG002
        if sign != ":":
            raise JsonError("missing : in object pair")
        self._expected = self._value

    def _behind_element(self, sign: str, value: Any) -> None:  # noqa: ARG002
        if sign == "]":
            self._pop()
        elif sign == ",":
            self._expected = self._value
        else:
            raise JsonError("expected separator in list")

    def _behind_member(self, sign: str, value: Any) -> None:  # noqa: ARG002
        if sign == "}":
            self._pop()
        elif sign == ",":
            self._expected = self._object_key
        else:
            raise JsonError("expected separator in dict")

    def _pop(self) -> None:
        self._finish(*self._containers.pop())

    def _finish(self, value: Any, key: str) -> None:
        if not self._containers:
            self._result = value
            return
        container, _ = self._containers[-1]
        if isinstance(container, list):
            container.append(value)
            self._expected = self._behind_element
        elif key in container:
            raise JsonError("duplicate key")
        else:
            container[key] = value
            self._expected = self._behind_member


def decode_string(quoted: bytes) -> str | JsonError:
    """The text of a string token, quotes and all."""
    parts = []
    at, end = 1, len(quoted) - 1
    try:
        while at < end:
            segment = _SEGMENT.match(quoted, at, end)
            assert segment is not None
            raw, at = segment.group(), segment.end()
            if raw == b"\\u":
                character, at = _unicode_escape(quoted, at - 2)
                parts.append(character)
            elif raw[0] == 0x5C:
                if raw not in _ESCAPES:
                    raise JsonError("invalid escape sequence in string")
                parts.append(_ESCAPES[raw])
            else:
                parts.append(_characters(raw))
    except JsonError as error:
        return error
    return "".join(parts)


def _characters(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\ufffe"
    if _NONCHARACTER.search(text):
        raise JsonError("invalid UTF-8 sequence in string")
    return text


def _unicode_escape(quoted: bytes, at: int) -> tuple[str, int]:
    """The character, and where its escape ends."""
    found = _HEXADECIMAL.match(quoted, at)
    code, end = (int(found[1], 16), at + 6) if found else (0xFFFE, at + 6)
    if 0xD800 <= code < 0xDC00:
        low = _HEXADECIMAL.match(quoted, end)
        if low and 0xDC00 <= int(low[1], 16) < 0xE000:
            code, end = 0x10000 + ((code & 0x3FF) << 10) + (int(low[1], 16) & 0x3FF), end + 6
    if 0xD800 <= code < 0xE000 or _NONCHARACTER.match(chr(code)):
        shown = quoted[at:end].decode(errors="replace")
        raise JsonError(f"{shown} is not a valid Unicode character")
    return chr(code), end


def decode_number(text: bytes) -> int | float | JsonError:
    """A whole number of at most 64 bits, or else a float."""
    try:
        if text.lstrip(b"-").isdigit() and len(text) <= 20 and _LEAST <= int(text) < _BEYOND:
            return int(text)
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    return JsonError(f"{text.decode()} is beyond the range of numbers")
