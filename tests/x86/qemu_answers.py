"""What QEMU 10.0.2 answered to measure_cpuid.py, read from tests/data/qemu10/x86-cpuid.txt.xz."""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path

from cpufw_x86.cpuid import Registers

DATA = Path(__file__).parents[1] / "data" / "qemu10"
Leaf = tuple[int, int]


@dataclass
class Answers:
    """One set of machine types that answered alike: `-cpu`, `-smp`, and per slot its registers.

    `common` holds the leaves on which all CPUs agree, `own` the others by APIC id; a leaf in
    neither is zero.
    """

    machines: tuple[str, ...]
    cpu: str
    smp: str
    slots: tuple[int, ...]
    common: dict[Leaf, Registers] = field(default_factory=dict)
    own: dict[int, dict[Leaf, Registers]] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many of each level."""
        return {name: int(count) for name, count in (p.split("=") for p in self.smp.split(","))}

    @property
    def total(self) -> int:
        """How many slots there are."""
        return prod(self.counts.values())

    def of(self, apic_id: int) -> dict[Leaf, Registers]:
        """The leaves of one CPU that are not zero."""
        return self.common | self.own.get(apic_id, {})


NAME = "x86-cpuid.txt.xz"


@cache
def _lines() -> tuple[str, ...]:
    text = lzma.decompress((DATA / NAME).read_bytes()).decode()
    return tuple(filter(None, text.splitlines()))


@cache
def asked_leaves() -> tuple[Leaf, ...]:
    """The leaves that every case asked for: the file's first line."""
    return tuple(map(_leaf, _lines()[0].split()))


@cache
def answers() -> tuple[Answers, ...]:
    """Every case that was measured."""
    return tuple(_read(_lines()[1:]))


def _read(lines: Iterable[str]) -> Iterator[Answers]:
    current: Answers | None = None
    for line in lines:
        if line.startswith("["):
            if current is not None:
                yield current
            machines, cpu, smp, slots = line[1:-1].split(" | ")
            ids = tuple(map(int, slots.split(",")))
            current = Answers(tuple(machines.split()), cpu, smp, ids)
            continue
        assert current is not None
        key, *values = line.split()
        where = current.common
        if key.startswith("@"):
            where = current.own.setdefault(int(key[1:]), {})
            key, *values = values
        eax, ebx, ecx, edx = (int(value, 16) for value in values)
        where[_leaf(key)] = (eax, ebx, ecx, edx)
    if current is not None:
        yield current


@cache
def _leaf(text: str) -> Leaf:
    function, index = text.split(".")
    return int(function, 16), int(index)
