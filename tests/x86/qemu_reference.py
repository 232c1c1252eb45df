"""What QEMU 10.0.2 answered: models, leaves and topologies from tests/data/qemu10."""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any

from cpufw.core.topology import Topology, TopologyLevel
from cpufw_x86.caches import Cache, CacheType
from cpufw_x86.cpuid import Registers
from cpufw_x86.identity import CpuIdentity

DATA = Path(__file__).parents[1] / "data" / "qemu10"


def topology(**counts: int) -> Topology:
    """An x86 topology: `topology(sockets=2, cores=4)`, the levels not named being one each."""
    levels = ("socket", "die", "module", "core", "thread")
    return Topology(
        tuple((TopologyLevel(name), counts.get(name + "s", 1)) for name in levels), cpus=1
    )


MEASURED_CACHES_TOPOLOGY = topology(sockets=2, dies=2, cores=2, threads=2)
SHARE_LEVELS = {2: TopologyLevel.CORE, 4: TopologyLevel.DIE}
"""Which unit of that topology holds this many threads."""


@cache
def load(name: str) -> Any:
    return json.loads(lzma.decompress((DATA / f"{name}.json.xz").read_bytes()))


def models() -> dict[str, Any]:
    """Every model that has an identity of its own (all but `host`)."""
    return {
        name: record
        for name, record in load("x86-models")["models"].items()
        if record["identity-properties"]
    }


def words_of(name: str) -> dict[str, int]:
    return numbers(load("x86-models")["models"][name]["words"])


def numbers(words: dict[str, str]) -> dict[str, int]:
    return {name: int(value, 16) for name, value in words.items()}


def registers(values: list[str]) -> Registers:
    eax, ebx, ecx, edx = (int(value, 16) for value in values)
    return eax, ebx, ecx, edx


def identity_of(name: str, words: dict[str, int], **changes: Any) -> CpuIdentity:
    """The identity of a reference model with these feature words."""
    facts = models()[name]["identity-properties"]
    fields = {
        key.replace("-", "_"): value
        for key, value in facts.items()
        if key not in ("legacy-cache", "vendor")
    }
    caches = None if facts["legacy-cache"] else model_caches(name)
    vendor = facts["vendor"]
    return CpuIdentity(**{"vendor": vendor, "words": words, "caches": caches, **fields, **changes})


@cache
def measured_caches() -> dict[str, dict[str, Registers]]:
    """By model: leaves 4, 80000005, 80000006 and 8000001d in MEASURED_CACHES_TOPOLOGY."""
    measured: dict[str, dict[str, Registers]] = {}
    current: dict[str, Registers] = {}
    for line in (DATA / "x86-caches.txt").read_text().splitlines():
        leaf_or_model, *values = line.split()
        if values:
            current[leaf_or_model] = registers(values)
        else:
            current = measured[leaf_or_model] = {}
    return measured


def model_caches(name: str) -> tuple[Cache, ...]:
    """A model's own caches, read from leaf 4 and, for the lines per tag, 80000005 and 80000006."""
    record = load("x86-models")["models"][name]
    leaves = measured_caches()[name if name in measured_caches() else record["alias-of"]]
    lower, upper = leaves["80000005"], leaves["80000006"]
    lines_per_tag = [register >> 8 & 0xF for register in (lower[2], lower[3], upper[2], upper[3])]
    return tuple(_decode_leaf_4(leaves[f"4.{index}"], lines_per_tag[index]) for index in range(4))


def _decode_leaf_4(answer: Registers, lines_per_tag: int) -> Cache:
    eax, ebx, ecx, edx = answer
    line_size, partitions = (ebx & 0xFFF) + 1, (ebx >> 12 & 0x3FF) + 1
    ways, sets = (ebx >> 22) + 1, ecx + 1
    return Cache(
        level=eax >> 5 & 0b111,
        type=CacheType(eax & 0b11111),
        size=line_size * partitions * ways * sets,
        line_size=line_size,
        associativity=ways,
        partitions=partitions,
        sets=sets,
        lines_per_tag=lines_per_tag,
        self_init=bool(eax >> 8 & 1),
        no_invd_sharing=bool(edx & 1),
        inclusive=bool(edx >> 1 & 1),
        complex_indexing=bool(edx >> 2 & 1),
        share_level=SHARE_LEVELS[(eax >> 14 & 0xFFF) + 1],
    )
