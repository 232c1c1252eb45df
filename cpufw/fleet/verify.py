"""What was asked of an accelerator for one CPU against what it granted, bit by bit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING

from cpufw.core.features import FeatureSet, FeatureTable, bits
from cpufw.errors import ModelError

if TYPE_CHECKING:
    from cpufw.core.capture import Words
    from cpufw.core.cpu import CPUState
    from cpufw.core.machine import Machine
    from cpufw.framework import Framework

# What a demonstration guest prints of its boot CPU (MachineType.demo).
_WORD_LINE = re.compile(r"^cpu 0: word (\S+) ([0-9a-f]+)\s*$", re.MULTILINE)
_LAST_LINE = b"cpu 0: online"
_PATIENCE, _TICK = 60.0, 0.02  # seconds; an emulated host takes a few of them


@dataclass(frozen=True)
class WordDifference:
    """A register whose bits differ: what was asked for, what was granted, what a guest reads.

    `missing` and `added` name the bits that differ, those that no feature owns as `bit 13`.
    `seen` is None for a register that the guest does not tell of.
    """

    word: str
    requested: int
    granted: int
    missing: tuple[str, ...]
    added: tuple[str, ...]
    seen: int | None = None

    @property
    def width(self) -> int:
        """Bits of the register: 32, or 64 where one above is set."""
        return 64 if (self.requested | self.granted) >> 32 else 32


@dataclass(frozen=True)
class Verification:
    """One CPU, realized and read back. `extra` is what was not asked for and is there.

    `seen` are the words that a guest read in it, by name; empty if the machine type brings no
    guest that tells, or it did not get that far.
    """

    cpu: str
    accelerator: str
    requested: FeatureSet
    granted: FeatureSet
    unavailable: FeatureSet
    extra: FeatureSet
    words: tuple[WordDifference, ...]
    seen: Mapping[str, int]

    @property
    def same(self) -> bool:
        """Whether the guest has exactly what was asked for."""
        return not (self.unavailable or self.extra or self.words)


def verify(
    framework: Framework, cpu: str, machine: str = "pc", arch: str | None = None
) -> Verification:
    """Realize `cpu` (a `--cpu` string) in a machine of this type, read it back, and let a guest.

    The guest is the machine type's demonstration. Raises what `Framework.machine` raises, and
    `ModelError` for a machine without accelerator.
    """
    demo = framework.machine_type(machine).demo if machine != "none" else None
    console = bytearray()
    options = {**demo, "serial": console.extend} if demo else {}
    with framework.machine(machine, cpu=cpu, arch=arch, **options) as built:
        if built.accelerator is None:
            raise ModelError(f"machine type {machine} runs nothing, so nothing is granted there")
        boot = built.slots[0].cpu
        assert boot is not None
        words = _read_back(boot)
        seen = _words_told(built, console) if demo else {}
        return _verification(cpu, boot, words, seen)


def verify_realized(cpu: CPUState) -> Verification:
    """Read back a CPU of a machine that is there; its vCPU must not be running.

    Raises `ModelError` for a machine without accelerator.
    """
    machine = cpu.machine
    if machine is None or machine.accelerator is None:
        raise ModelError(f"{cpu.type_name} runs nowhere, so nothing was granted")
    return _verification(cpu.model.name, cpu, _read_back(cpu), {})


def _verification(
    name: str, cpu: CPUState, words: tuple[Words, Words], seen: Mapping[str, int]
) -> Verification:
    assert cpu.machine is not None
    return Verification(
        name,
        cpu.machine.accelerator_name,
        cpu.requested,
        cpu.granted,
        cpu.unavailable,
        cpu.extra,
        tuple(word_differences(cpu.model.table, *words, seen)),
        seen,
    )


def _read_back(cpu: CPUState) -> tuple[Words, Words]:
    rules = cpu.architecture.capture
    if rules is not None:
        return rules().read_back(cpu)
    return _words(cpu.requested), _words(cpu.granted | cpu.extra)


def _words_told(machine: Machine, console: bytearray) -> dict[str, int]:
    """What the demonstration guest says its boot CPU reads; empty if it does not come that far."""
    machine.start()
    deadline = monotonic() + _PATIENCE
    while _LAST_LINE not in console:
        if machine.wait(_TICK).reason != "timeout" or monotonic() > deadline:
            return {}
    return {name: int(value, 16) for name, value in _WORD_LINE.findall(console.decode("ascii"))}


def word_differences(
    table: FeatureTable,
    requested: Mapping[str, int],
    granted: Mapping[str, int],
    seen: Mapping[str, int] = MappingProxyType({}),
) -> Iterator[WordDifference]:
    """Each word of which not all bits are the same, in table order; an absent word is zero.

    A word that is not in `seen` was not looked at there.
    """
    owners = {place: feature.name for feature in table for place in _places(feature.places)}
    order = {word: number for number, word in enumerate(dict.fromkeys(word for word, _ in owners))}
    for word in sorted(requested.keys() | granted.keys(), key=lambda w: order.get(w, len(order))):
        asked, given = requested.get(word, 0), granted.get(word, 0)
        if asked != given or seen.get(word, given) != given:
            missing, added = (
                tuple(owners.get((word, bit), f"bit {bit}") for bit in bits(difference))
                for difference in (asked & ~given, given & ~asked)
            )
            yield WordDifference(word, asked, given, missing, added, seen.get(word))


def _words(features: FeatureSet) -> Mapping[str, int]:
    words: dict[str, int] = {}
    for name in features:
        for word, bit in _places(features.table[name].places):
            words[word] = words.get(word, 0) | 1 << bit
    return words


def _places(places: Iterable[str]) -> Iterator[tuple[str, int]]:
    for place in places:
        word, _, bit = place.rpartition(":")
        if word and bit.isdigit():
            yield word, int(bit)
