"""What was asked of an accelerator for one CPU against what it granted, bit by bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpufw.core.features import FeatureSet, FeatureTable, bits
from cpufw.errors import ModelError

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUState
    from cpufw.framework import Framework


@dataclass(frozen=True)
class WordDifference:
    """A register whose bits differ: what was asked for and what is there.

    `missing` and `added` name the bits that differ, those that no feature owns as `bit 13`.
    """

    word: str
    requested: int
    granted: int
    missing: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def width(self) -> int:
        """Bits of the register: 32, or 64 where one above is set."""
        return 64 if (self.requested | self.granted) >> 32 else 32


@dataclass(frozen=True)
class Verification:
    """One CPU, realized and read back. `extra` is what was not asked for and is there."""

    cpu: str
    accelerator: str
    requested: FeatureSet
    granted: FeatureSet
    unavailable: FeatureSet
    extra: FeatureSet
    words: tuple[WordDifference, ...]

    @property
    def same(self) -> bool:
        """Whether the guest has exactly what was asked for."""
        return not (self.unavailable or self.extra or self.words)


def verify(
    framework: Framework, cpu: str, machine: str = "pc", arch: str | None = None
) -> Verification:
    """Realize `cpu` (a `--cpu` string) in a machine of this type and read it back.

    Raises what `Framework.machine` raises, and `ModelError` for a machine without accelerator.
    """
    with framework.machine(machine, cpu=cpu, arch=arch) as built:
        if built.accelerator is None:
            raise ModelError(f"machine type {machine} runs nothing, so nothing is granted there")
        boot = built.slots[0].cpu
        assert boot is not None
        return Verification(
            cpu,
            built.accelerator_name,
            boot.requested,
            boot.granted,
            boot.unavailable,
            boot.extra,
            tuple(_differences(boot)),
        )


def _differences(cpu: CPUState) -> Iterator[WordDifference]:
    rules = cpu.architecture.capture
    if rules is not None:
        requested, granted = rules().read_back(cpu)
    else:
        requested, granted = _words(cpu.requested), _words(cpu.granted | cpu.extra)
    return word_differences(cpu.model.table, requested, granted)


def word_differences(
    table: FeatureTable, requested: Mapping[str, int], granted: Mapping[str, int]
) -> Iterator[WordDifference]:
    """Each word of which not all bits are the same, in table order; an absent word is zero."""
    owners = {place: feature.name for feature in table for place in _places(feature.places)}
    order = {word: number for number, word in enumerate(dict.fromkeys(word for word, _ in owners))}
    for word in sorted(requested.keys() | granted.keys(), key=lambda w: order.get(w, len(order))):
        asked, given = requested.get(word, 0), granted.get(word, 0)
        if asked != given:
            missing, added = (
                tuple(owners.get((word, bit), f"bit {bit}") for bit in bits(difference))
                for difference in (asked & ~given, given & ~asked)
            )
            yield WordDifference(word, asked, given, missing, added)


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
