"""AML, the byte code of ACPI's namespace: each function encodes one term of the language.

Source: ACPI 6.5, chapter 20. Where a term is wanted, bytes are a term already encoded, a number
is a constant, and a string is a name or a path (`string` makes text). What is called as in ASL
means what it means in ASL.
"""

from __future__ import annotations

from collections.abc import Sequence

Term = bytes | int | str

_EXTENDED = b"\x5b"

SYSTEM_IO = 1  # ACPI 6.5, 20.2.5.2, RegionSpace
FOREVER = 0xFFFF  # the timeout of Acquire that never ends


def encode(term: Term) -> bytes:
    """The bytes of `term`."""
    if isinstance(term, bytes):
        return term
    if isinstance(term, str):
        return name_string(term)
    return integer(term)


def _join(terms: Sequence[Term]) -> bytes:
    return b"".join(map(encode, terms))


# --- names and data (20.2.2, 20.2.3) --------------------------------------------------------------


def name_segment(text: str) -> bytes:
    """Four characters: `text`, filled with underscores."""
    segment = text.ljust(4, "_")
    if (
        not text
        or len(segment) != 4
        or not segment.isascii()
        or segment[0].isdigit()
        or not all(c == "_" or c.isdigit() or c.isupper() for c in segment)
    ):
        raise ValueError(f"'{text}' is not a name of AML: 1 to 4 of A-Z, 0-9, _, no digit first")
    return segment.encode()


def name_string(path: str) -> bytes:
    r"""A name, or a path such as `\_SB.CPUS` or `^MUTX`."""
    rest = path.lstrip("\\^")
    prefix = path[: len(path) - len(rest)].encode()
    segments = [name_segment(part) for part in rest.split(".")] if rest else []
    match len(segments):
        case 0:
            lead = b"\x00"
        case 1:
            lead = b""
        case 2:
            lead = b"\x2e"
        case count:
            lead = bytes((0x2F, count))
    return prefix + lead + b"".join(segments)


def integer(value: int) -> bytes:
    """The shortest constant of 64 bits."""
    if value in (0, 1):
        return bytes((value,))
    for opcode, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4), (0x0E, 8)):
        if 0 <= value < 1 << 8 * size:
            return bytes((opcode,)) + value.to_bytes(size, "little")
    raise ValueError(f"{value} is not a number of 64 bits")


def string(text: str) -> bytes:
    """A constant string."""
    return b"\x0d" + text.encode("ascii") + b"\x00"


def eisa_id(text: str) -> bytes:
    """A plug-and-play id such as `PNP0501` in its compressed form (ACPI 6.5, 19.3.4)."""
    letters = 0
    for letter in text[:3]:
        letters = letters << 5 | ord(letter) - 0x40
    number = letters << 16 | int(text[3:], 16)
    return integer(int.from_bytes(number.to_bytes(4, "big"), "little"))


def buffer(data: bytes) -> bytes:
    """A buffer that holds `data`."""
    return b"\x11" + sized(integer(len(data)) + data)


def package(*elements: Term) -> bytes:
    """A package of at most 255 elements."""
    return b"\x12" + sized(bytes((len(elements),)) + _join(elements))


def sized(body: bytes) -> bytes:
    """`body` after its PkgLength (20.2.4), which counts itself."""
    for extra in range(4):
        length = 1 + extra + len(body)
        if length <= _LARGEST[extra]:
            return _package_length(length, extra) + body
    raise ValueError(f"{len(body)} bytes of AML are too many for one package length")


_LARGEST = (0x3F, 0xFFF, 0xF_FFFF, 0xFFF_FFFF)


def _package_length(length: int, extra: int) -> bytes:
    if not extra:
        return bytes((length,))
    return bytes((extra << 6 | length & 0xF,)) + (length >> 4).to_bytes(extra, "little")


# --- named objects (20.2.5) -----------------------------------------------------------------------


def scope(path: str, *terms: Term) -> bytes:
    """`Scope (path) {terms}`."""
    return b"\x10" + sized(name_string(path) + _join(terms))


def device(name: str, *terms: Term) -> bytes:
    """`Device (name) {terms}`."""
    return _EXTENDED + b"\x82" + sized(name_string(name) + _join(terms))


def named(name: str, value: Term) -> bytes:
    """`Name (name, value)`."""
    return b"\x08" + name_string(name) + encode(value)


def method(name: str, arguments: int, *terms: Term, serialized: bool = False) -> bytes:
    """`Method (name, arguments, …) {terms}`."""
    flags = arguments | serialized << 3
    return b"\x14" + sized(name_string(name) + bytes((flags,)) + _join(terms))


def operation_region(name: str, space: int, offset: int, length: int) -> bytes:
    """`OperationRegion (name, space, offset, length)`."""
    return _EXTENDED + b"\x80" + name_string(name) + bytes((space,)) + _join((offset, length))


BYTE_ACCESS, DWORD_ACCESS = 1, 3
PRESERVE, WRITE_AS_ZEROS = 0, 2


def field(region: str, access: int, update: int, *units: tuple[str, int]) -> bytes:
    """`Field (region, access, NoLock, update) {units}`.

    A unit is its name and its bits; without a name (`""`) the bits are skipped.
    """
    flags = access | update << 5
    body = name_string(region) + bytes((flags,))
    for name, bits in units:
        body += name_segment(name) if name else b"\x00"
        body += _package_length(bits, next(i for i in range(4) if bits <= _LARGEST[i]))
    return _EXTENDED + b"\x81" + sized(body)


def mutex(name: str) -> bytes:
    """`Mutex (name, 0)`."""
    return _EXTENDED + b"\x01" + name_string(name) + b"\x00"


# --- statements and expressions (20.2.5.3, 20.2.5.4, 20.2.6) --------------------------------------


def local(number: int) -> bytes:
    """`Local0` … `Local7`."""
    return bytes((0x60 + number,))


def argument(number: int) -> bytes:
    """`Arg0` … `Arg6`."""
    return bytes((0x68 + number,))


def call(path: str, *arguments: Term) -> bytes:
    """A call of a method; AML does not say how many arguments follow, the method does."""
    return name_string(path) + _join(arguments)


def store(value: Term, target: Term) -> bytes:
    """`Store (value, target)`."""
    return b"\x70" + _join((value, target))


def less(left: Term, right: Term) -> bytes:
    """`LLess (left, right)`."""
    return b"\x95" + _join((left, right))


def acquire(name: str) -> bytes:
    """`Acquire (name, 0xFFFF)`."""
    return _EXTENDED + b"\x23" + name_string(name) + FOREVER.to_bytes(2, "little")


def release(name: str) -> bytes:
    """`Release (name)`."""
    return _EXTENDED + b"\x27" + name_string(name)


def notify(name: Term, event: Term) -> bytes:
    """`Notify (name, event)`."""
    return b"\x86" + _join((name, event))


def if_(condition: Term, *terms: Term) -> bytes:
    """`If (condition) {terms}`."""
    return b"\xa0" + sized(encode(condition) + _join(terms))


def else_(*terms: Term) -> bytes:
    """`Else {terms}`, after an `if_`."""
    return b"\xa1" + sized(_join(terms))


def while_(condition: Term, *terms: Term) -> bytes:
    """`While (condition) {terms}`."""
    return b"\xa2" + sized(encode(condition) + _join(terms))


def break_() -> bytes:
    """`Break`."""
    return b"\xa5"


def return_(value: Term) -> bytes:
    """`Return (value)`."""
    return b"\xa4" + encode(value)
