"""Firecracker's custom CPU templates, as far as they are the same on every architecture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cpufw.errors import FormatError, nearest
from cpufw.formats.text import parse_json

KEYS = ("kvm_capabilities", "cpuid_modifiers", "msr_modifiers", "vcpu_features", "reg_modifiers")


class Bits(NamedTuple):
    """A bitmap: `value` where `known` has a bit, the host's elsewhere."""

    known: int
    value: int


def bitmap(bits: Bits, width: int) -> str:
    """`0b` and a character for each bit, the highest first: `0`, `1`, or `x` for the host's."""
    known, value = f"{bits.known:0{width}b}", f"{bits.value & bits.known:0{width}b}"
    return "0b" + "".join(v if k == "1" else "x" for k, v in zip(known, value, strict=True))


def parse_bitmap(text: Any, width: int, where: str) -> Bits:
    """The bits of a bitmap; characters that are missing at its front are the host's.

    Raises `FormatError`.
    """
    if not isinstance(text, str):
        raise FormatError(f"{where}: the bitmap is not text like 0b01xx")
    digits = text.removeprefix("0b").replace("_", "")
    if len(digits) > width:
        raise FormatError(f"{where}: the bitmap has {len(digits)} bits, expected at most {width}")
    wrong = next((each for each in digits if each not in "01x"), None)
    if wrong is not None:
        raise FormatError(f"{where}: '{wrong}' is no bit, expected 0, 1 or x")
    known = "".join("0" if each == "x" else "1" for each in digits)
    return Bits(int(known or "0", 2), int(digits.replace("x", "0") or "0", 2))


def parse_number(value: Any, width: int, where: str) -> int:
    """A number written as Firecracker writes it: text with `0x` or `0b`. Raises `FormatError`."""
    try:
        number = int(value, 0) if isinstance(value, str) else -1
    except ValueError:
        number = -1
    if not 0 <= number < 1 << width:
        raise FormatError(f'{where}: {value!r} is not a number like "0x1" of {width} bits')
    return number


def parse_template(text: str) -> Mapping[str, list[Any]]:
    """The lists of a template, or of a fingerprint's guest configuration. Raises `FormatError`."""
    document = parse_json(text)
    if isinstance(document, dict) and "guest_cpu_config" in document:
        document = document["guest_cpu_config"]
    if not isinstance(document, dict):
        raise FormatError("this is no CPU template: expected an object with cpuid_modifiers, …")
    for key, value in document.items():
        if key not in KEYS:
            near = nearest(key, KEYS)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(KEYS)}"
            raise FormatError(f"'{key}' is not a key of a CPU template; {hint}")
        if not isinstance(value, list):
            raise FormatError(f"{key} is not a list")
    return document


def entries(template: Mapping[str, list[Any]], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of the list `key`, with where it is. Raises `FormatError`."""
    for number, entry in enumerate(template.get(key, ())):
        where = f"{key}[{number}]"
        if not isinstance(entry, dict):
            raise FormatError(f"{where} is not an object")
        yield where, entry


def registers(
    template: Mapping[str, list[Any]], key: str, address_width: int, width: int
) -> dict[int, Bits]:
    """The bits of each register of the list `key`, by address. Raises `FormatError`."""
    found: dict[int, Bits] = {}
    for where, entry in entries(template, key):
        address = parse_number(entry.get("addr"), address_width, f"{where}.addr")
        if address in found:
            raise FormatError(f"{where}: {address:#x} is there twice")
        found[address] = parse_bitmap(entry.get("bitmap"), width, f"{where}.bitmap")
    return found


def dump_template(template: Mapping[str, list[Any]]) -> str:
    """The template as JSON, as Firecracker's own are laid out."""
    return json.dumps(template, indent=2) + "\n"


def looks_like_template(text: str, *keys: str) -> bool:
    """Whether `text` is JSON that names one of these lists."""
    return text.lstrip().startswith("{") and any(f'"{key}"' in text for key in keys)
