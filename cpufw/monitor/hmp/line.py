"""A command line of HMP taken apart: words, numbers as expressions, formats of memory."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from cpufw.errors import CpufwError

_MASK = (1 << 64) - 1
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|\d+")
_REGISTER = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_WORD = re.compile(r"\S+")
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8, "L": 8}
_LETTERS = "xduoci"
_MOST = 1 << 16
_DEEPEST = 64
_LEVELS: tuple[dict[str, Callable[[int, int], int]], ...] = (
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": operator.floordiv, "%": operator.mod},
    {"&": operator.and_, "|": operator.or_, "^": operator.xor},
)


class LineError(CpufwError):
    """A command line that cannot be read."""


@dataclass(frozen=True)
class Format:
    """`/10xw`: how many, in which form, of what size in bytes; None where not said."""

    count: int = 1
    letter: str | None = None
    size: int | None = None


class Line:
    """The rest of a command line; each method takes something off its beginning.

    `register` gives a register's value by name. All raise `LineError`.
    """

    def __init__(self, text: str, register: Callable[[str], int]) -> None:
        self._text, self._at, self._register = text, 0, register

    def _skip(self) -> str:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._text[self._at : self._at + 1]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return not self._skip()

    def rest(self) -> str:
        """All that is left."""
        text, self._at = self._text[self._at :].strip(), len(self._text)
        return text

    def word(self) -> str:
        """Up to the next space, or what is in quotes."""
        if self._skip() == '"':
            return self._quoted()
        found = _WORD.match(self._text, self._at)
        if found is None:
            raise LineError("string expected")
        self._at = found.end()
        return found[0]

    def _quoted(self) -> str:
        found = re.compile(r'"((?:[^"\\]|\\.)*)"').match(self._text, self._at)
        if found is None:
            raise LineError("unterminated string")
        self._at = found.end()
        return re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), found[1])

    def flag(self, letter: str) -> bool:
        """Whether `-letter` comes next; it is taken then."""
        self._skip()
        found = re.compile(rf"-{letter}(?=\s|$)").match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found is not None

    def format(self) -> Format:
        """A format, if `/` comes next."""
        if self._skip() != "/":
            return Format()
        text = self._text[self._at + 1 :].split(None, 1)[:1]
        given = text[0] if text and not self._text[self._at + 1].isspace() else ""
        self._at += 1 + len(given)
        digits = re.match(r"\d*", given)
        assert digits is not None
        letter, size = None, None
        for each in given[digits.end() :]:
            if each in _SIZES:
                size = _SIZES[each]
            elif each in _LETTERS:
                letter = each
            else:
                raise LineError(f"invalid char in format: '{each}'")
        count = int(digits[0][:9] or 1)
        if count > _MOST:
            raise LineError(f"{count} are too many, at most {_MOST}")
        return Format(count, letter, size)

    def number(self) -> int:
        """An expression: `$rip + 0x10`, by 64 bits without sign."""
        return self._sum(0, 0) & _MASK

    def _sum(self, level: int, depth: int) -> int:
        if level == len(_LEVELS):
            return self._unary(depth)
        value = self._sum(level + 1, depth)
        while (sign := self._skip()) and sign in _LEVELS[level]:
            self._at += 1
            other = self._sum(level + 1, depth)
            if sign in "/%" and other == 0:
                raise LineError("division by zero")
            value = _LEVELS[level][sign](value, other)
        return value

    def _unary(self, depth: int) -> int:
        if depth > _DEEPEST:
            raise LineError("expression nests too deeply")
        sign = self._skip()
        if not sign:
            raise LineError("unexpected end of expression")
        if sign in "+-~":
            self._at += 1
            value = self._unary(depth + 1)
            return {"+": value, "-": -value, "~": ~value}[sign]
        if sign == "(":
            self._at += 1
            value = self._sum(0, depth + 1)
            if self._skip() != ")":
                raise LineError("')' expected")
            self._at += 1
            return value
        if found := _REGISTER.match(self._text, self._at):
            self._at = found.end()
            return self._register(found[1])
        if found := _NUMBER.match(self._text, self._at):
            self._at = found.end()
            text = found[0]
            if len(text) > 32:
                raise LineError("number too large")
            octal = len(text) > 1 and text[0] == "0" and text.isdecimal()
            try:
                return int(text, 8 if octal else 0)
            except ValueError:
                raise LineError(f"'{text}' is no octal number") from None
        raise LineError(f"invalid char '{sign}' in expression")
