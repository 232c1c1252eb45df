"""Which host keeps which feature from all the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cpufw.core.algebra import Operand, runnable
from cpufw.core.features import FeatureSet, bits
from cpufw.errors import ModelError


@dataclass(frozen=True)
class Blockers:
    """What some hosts of a set have and others lack.

    `lacking` names, for each feature that not every host has, the hosts without it; `gains` are
    the hosts without which the rest would have more, and what, the greatest gain first.
    """

    lacking: dict[str, tuple[str, ...]]
    gains: tuple[tuple[str, FeatureSet], ...]


def blockers(hosts: Iterable[Operand], wanted: FeatureSet | None = None) -> Blockers:
    """Who lacks what of `wanted`: by default of all migratable features that any host has.

    A gain counts a feature only if the rest has what it requires, too. Raises `ModelError` if
    there are no hosts.
    """
    alike: dict[int, list[str]] = defaultdict(list)  # hosts by what they have: often the same
    table = None
    for name, features, _ in hosts:
        table = table or features.table
        alike[features.mask].append(name)
    if table is None:
        raise ModelError("no hosts are given")
    anywhere, everywhere = 0, -1
    for mask in alike:
        anywhere |= mask
        everywhere &= mask
    if wanted is None:
        anywhere, everywhere = (m & ~table.unmigratable.mask for m in (anywhere, everywhere))
        wanted = FeatureSet(table, anywhere)
    lacking: dict[int, list[str]] = defaultdict(list)
    for mask, names in alike.items():
        for bit in bits(wanted.mask & ~mask):
            lacking[bit] += names
    return Blockers(
        {table.features[bit].name: tuple(lacking[bit]) for bit in sorted(lacking)},
        tuple(_gains(alike, FeatureSet(table, anywhere), FeatureSet(table, everywhere), wanted)),
    )


def _gains(
    alike: Mapping[int, Sequence[str]],
    anywhere: FeatureSet,
    everywhere: FeatureSet,
    wanted: FeatureSet,
) -> list[tuple[str, FeatureSet]]:
    once = twice = 0  # what one host lacks, and what several do
    for mask, names in alike.items():
        lacked = anywhere.mask & ~mask
        twice |= once & lacked if len(names) == 1 else lacked
        once |= lacked
    now, gains = runnable(everywhere), []
    for mask, names in alike.items():
        back = anywhere.mask & ~mask & ~twice
        if back:
            gain = runnable(FeatureSet(anywhere.table, everywhere.mask | back)) - now & wanted
            gains += [(names[0], gain)] if gain else []
    return sorted(gains, key=lambda each: -len(each[1]))
