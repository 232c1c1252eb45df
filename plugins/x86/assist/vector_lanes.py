"""What packed instructions do to whole registers, as numbers: logic, arithmetic, shuffles.

Each function takes the operands as unsigned numbers and the size in bytes, and works on each
128-bit lane or element by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Binary = Callable[[int, int, int], int]
"""First source, second source, bytes: the result."""
Shuffle = Callable[[int, int, int], int]
"""Source, immediate, bytes: the result."""

LANE = 16


def split(value: int, width: int, size: int) -> list[int]:
    """The elements of `width` bytes, lowest first."""
    mask = (1 << 8 * width) - 1
    return [value >> 8 * at & mask for at in range(0, size, width)]


def join(elements: Sequence[int], width: int) -> int:
    """The number made of elements of `width` bytes."""
    mask = (1 << 8 * width) - 1
    return sum((element & mask) << 8 * width * i for i, element in enumerate(elements))


def signed(value: int, width: int) -> int:
    """An element of `width` bytes as a signed number."""
    top = 1 << 8 * width - 1
    return (value ^ top) - top


def elementwise(width: int, function: Callable[[int, int], int]) -> Binary:
    """`function` of each pair of elements, cut to their width."""

    def result(first: int, second: int, size: int) -> int:
        pairs = zip(split(first, width, size), split(second, width, size), strict=True)
        return join([function(a, b) for a, b in pairs], width)

    return result


def by_lane(function: Callable[[int, int], int]) -> Binary:
    """`function` of each pair of 128-bit lanes."""
    return elementwise(LANE, function)


def saturating(width: int, is_signed: bool, function: Callable[[int, int], int]) -> Binary:
    """As `elementwise`, with results out of range put to its end."""
    low, high = (-(1 << 8 * width - 1), (1 << 8 * width - 1) - 1)
    if not is_signed:
        low, high = 0, (1 << 8 * width) - 1

    def one(a: int, b: int) -> int:
        if is_signed:
            a, b = signed(a, width), signed(b, width)
        return max(low, min(high, function(a, b)))

    return elementwise(width, one)


def comparing(width: int, function: Callable[[int, int], bool]) -> Binary:
    """All ones in the elements where `function` of the signed elements holds."""
    ones = (1 << 8 * width) - 1
    return elementwise(
        width, lambda a, b: ones if function(signed(a, width), signed(b, width)) else 0
    )


def choosing(width: int, is_signed: bool, function: Callable[..., int]) -> Binary:
    """`min` or `max` of each pair."""
    if not is_signed:
        return elementwise(width, lambda a, b: function(a, b))
    return elementwise(width, lambda a, b: function(signed(a, width), signed(b, width)))


def interleaving(width: int, high: bool) -> Binary:
    """PUNPCKL and PUNPCKH: elements of both in turn, from one half of each lane."""

    def one(a: int, b: int) -> int:
        half = LANE // width // 2
        chosen = slice(half, None) if high else slice(0, half)
        pairs = zip(split(a, width, LANE)[chosen], split(b, width, LANE)[chosen], strict=True)
        return join([element for pair in pairs for element in pair], width)

    return by_lane(one)


def packing(width: int, to_signed: bool) -> Binary:
    """PACKSS and PACKUS: signed elements of `width` to half of that, with saturation."""
    half = width // 2
    low, high = (-(1 << 8 * half - 1), (1 << 8 * half - 1) - 1)
    if not to_signed:
        low, high = 0, (1 << 8 * half) - 1

    def one(a: int, b: int) -> int:
        elements = split(a, width, LANE) + split(b, width, LANE)
        return join([max(low, min(high, signed(e, width))) for e in elements], half)

    return by_lane(one)


def shifting(width: int, kind: str) -> Binary:
    """PSLL, PSRL, PSRA by the lowest 64 bits of the second source."""
    bits = 8 * width

    def result(first: int, second: int, size: int) -> int:
        count = min(second & 0xFFFF_FFFF_FFFF_FFFF, bits)
        if kind == "left":
            shifted = [e << count if count < bits else 0 for e in split(first, width, size)]
        elif kind == "right":
            shifted = [e >> count for e in split(first, width, size)]
        else:
            shifted = [signed(e, width) >> min(count, bits - 1) for e in split(first, width, size)]
        return join(shifted, width)

    return result


def byte_shift(left: bool) -> Shuffle:
    """PSLLDQ and PSRLDQ: each lane by so many bytes."""

    def result(source: int, immediate: int, size: int) -> int:
        count = 8 * min(immediate, LANE)
        moved = [e << count if left else e >> count for e in split(source, LANE, size)]
        return join(moved, LANE)

    return result


def choose_four(elements: Sequence[int], immediate: int) -> list[int]:
    """Four of four elements, by two bits of `immediate` each."""
    return [elements[immediate >> 2 * i & 3] for i in range(4)]


def pshufd(source: int, immediate: int, size: int) -> int:
    """PSHUFD."""
    lanes = (split(lane, 4, LANE) for lane in split(source, LANE, size))
    return join([join(choose_four(lane, immediate), 4) for lane in lanes], LANE)


def pshufw(high: bool) -> Shuffle:
    """PSHUFHW and PSHUFLW: the words of one half of each lane."""

    def result(source: int, immediate: int, size: int) -> int:
        lanes = []
        for lane in split(source, LANE, size):
            words = split(lane, 2, LANE)
            half = slice(4, 8) if high else slice(0, 4)
            words[half] = choose_four(words[half], immediate)
            lanes.append(join(words, 2))
        return join(lanes, LANE)

    return result


def _pshufb(data: int, control: int) -> int:
    elements = split(data, 1, LANE)
    return join([0 if c & 0x80 else elements[c & 15] for c in split(control, 1, LANE)], 1)


def vpermq(source: int, immediate: int, size: int) -> int:
    """VPERMQ, VPERMPD."""
    return join(choose_four(split(source, 8, size), immediate), 8)


def palignr(first: int, second: int, immediate: int, size: int) -> int:
    """PALIGNR."""
    pairs = zip(split(first, LANE, size), split(second, LANE, size), strict=True)
    return join([(a << 128 | b) >> 8 * min(immediate, 32) for a, b in pairs], LANE)


def shufps(first: int, second: int, immediate: int, size: int) -> int:
    """SHUFPS."""
    lanes = []
    for a, b in zip(split(first, LANE, size), split(second, LANE, size), strict=True):
        low, high = split(a, 4, LANE), split(b, 4, LANE)
        chosen = [low[immediate & 3], low[immediate >> 2 & 3]]
        chosen += [high[immediate >> 4 & 3], high[immediate >> 6 & 3]]
        lanes.append(join(chosen, 4))
    return join(lanes, LANE)


def shufpd(first: int, second: int, immediate: int, size: int) -> int:
    """SHUFPD."""
    a, b = split(first, 8, size), split(second, 8, size)
    chosen = [(b if i & 1 else a)[(i & ~1) + (immediate >> i & 1)] for i in range(size // 8)]
    return join(chosen, 8)


def vperm2(first: int, second: int, immediate: int, size: int) -> int:  # noqa: ARG001
    """VPERM2F128, VPERM2I128."""
    lanes = split(first, LANE, 32) + split(second, LANE, 32)
    chosen = [0 if immediate >> shift & 8 else lanes[immediate >> shift & 3] for shift in (0, 4)]
    return join(chosen, LANE)


def _madd(a: int, b: int) -> int:
    x, y = ([signed(e, 2) for e in split(v, 2, 4)] for v in (a, b))
    return x[0] * y[0] + x[1] * y[1]


def _sum_of_differences(a: int, b: int) -> int:
    return sum(abs(x - y) for x, y in zip(split(a, 1, 8), split(b, 1, 8), strict=True))


def _multiply_high(a: int, b: int) -> int:
    return signed(a, 2) * signed(b, 2) >> 16


_LOGIC: dict[str, Callable[[int, int], int]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "andn": lambda a, b: ~a & b,
}
_WIDTHS = {"b": 1, "w": 2, "d": 4, "q": 8}


def _add(a: int, b: int) -> int:
    return a + b


def _subtract(a: int, b: int) -> int:
    return a - b


def _binaries() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, logic in _LOGIC.items():
        for spelled in (f"p{name}", f"{name}ps", f"{name}pd"):
            found[spelled] = by_lane(logic)
    for letter, width in _WIDTHS.items():
        found[f"padd{letter}"] = elementwise(width, _add)
        found[f"psub{letter}"] = elementwise(width, _subtract)
        found[f"pcmpeq{letter}"] = comparing(width, lambda a, b: a == b)
        found[f"pcmpgt{letter}"] = comparing(width, lambda a, b: a > b)
        if width < 8:
            for kind, is_signed in (("s", True), ("u", False)):
                found[f"pmin{kind}{letter}"] = choosing(width, is_signed, min)
                found[f"pmax{kind}{letter}"] = choosing(width, is_signed, max)
    for letter, width in (("b", 1), ("w", 2)):
        for kind, is_signed in (("s", True), ("us", False)):
            found[f"padd{kind}{letter}"] = saturating(width, is_signed, _add)
            found[f"psub{kind}{letter}"] = saturating(width, is_signed, _subtract)
        found[f"pavg{letter}"] = elementwise(width, lambda a, b: a + b + 1 >> 1)
    for pair, width in (("bw", 1), ("wd", 2), ("dq", 4), ("qdq", 8)):
        found[f"punpckl{pair}"] = interleaving(width, False)
        found[f"punpckh{pair}"] = interleaving(width, True)
    for letter, width in (("ps", 4), ("pd", 8)):
        found[f"unpckl{letter}"] = interleaving(width, False)
        found[f"unpckh{letter}"] = interleaving(width, True)
    for letter in "wdq":
        found[f"psll{letter}"] = shifting(_WIDTHS[letter], "left")
        found[f"psrl{letter}"] = shifting(_WIDTHS[letter], "right")
    for letter in "wd":
        found[f"psra{letter}"] = shifting(_WIDTHS[letter], "arithmetic")
    for name, width, to_signed in (
        ("packsswb", 2, True),
        ("packssdw", 4, True),
        ("packuswb", 2, False),
        ("packusdw", 4, False),
    ):
        found[name] = packing(width, to_signed)
    return found | {
        "pshufb": by_lane(_pshufb),
        "pmuludq": elementwise(8, lambda a, b: (a & 0xFFFF_FFFF) * (b & 0xFFFF_FFFF)),
        "pmullw": elementwise(2, lambda a, b: a * b),
        "pmulld": elementwise(4, lambda a, b: a * b),
        "pmulhuw": elementwise(2, lambda a, b: a * b >> 16),
        "pmulhw": elementwise(2, _multiply_high),
        "pmaddwd": elementwise(4, _madd),
        "psadbw": elementwise(8, _sum_of_differences),
    }


BINARIES: dict[str, Binary] = _binaries()
SHUFFLES: dict[str, Shuffle] = {
    "pshufd": pshufd,
    "pshufhw": pshufw(True),
    "pshuflw": pshufw(False),
    "pslldq": byte_shift(True),
    "psrldq": byte_shift(False),
}
"""One source and an immediate."""
BLENDS: dict[str, Callable[[int, int, int, int], int]] = {
    "palignr": palignr,
    "shufps": shufps,
    "shufpd": shufpd,
}
"""Two sources and an immediate."""
