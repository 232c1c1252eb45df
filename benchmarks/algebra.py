"""Figures of the algebra: baselines of many hosts, comparing all models, resolving one."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from random import Random
from statistics import median
from time import perf_counter

from benchmarks.figures import Figure, Row, Target
from cpufw.core.algebra import Operand
from cpufw.core.features import FeatureSet
from cpufw.core.model_algebra import ModelAlgebra
from cpufw.fleet.baseline import baseline
from cpufw.fleet.blockers import blockers
from cpufw.framework import Framework

FEW, MANY = 10_000, 1_000_000
_ARCH = "x86_64"
_RESOLVED = "Haswell-v4"
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


def fleet(algebra: ModelAlgebra, hosts: int) -> Iterator[Operand]:
    """Made-up hosts one by one, no two alike: of six generations, each without some features."""
    names = ("Haswell-v4", "Broadwell-v4", "Skylake-Server-v5", "Cascadelake-Server-v5",
             "Icelake-Server-v6", "SapphireRapids-v3")  # fmt: skip
    generations = [algebra.operand(name) for name in names]
    random = Random(20)
    table, width = algebra.catalogue.table, len(algebra.catalogue.table)
    for number in range(hosts):
        generation = generations[number % len(generations)]
        # Each feature stays with a probability of 255 in 256.
        mask = 0
        for _ in range(8):
            mask |= random.getrandbits(width)
        features = FeatureSet(table, generation.features.mask & mask)
        identity = {**generation.identity, "phys-bits": 46 + number % 7}
        yield Operand(f"host{number}", features, identity)


def algebra_figures(scale: float) -> Iterator[Row]:
    """All figures; `scale` multiplies the number of runs."""
    runs = max(3, round(10 * scale))
    few, _ = _elsewhere(FEW, runs)
    many, resident = _elsewhere(MANY, 1)
    yield _seconds(f"baseline of {FEW:,} hosts", few, 1, runs)
    yield _seconds(f"baseline of {MANY:,} hosts, made one by one", many, 20, 1)
    yield Figure(
        f"baseline of {MANY:,} hosts, peak resident set",
        "MiB",
        resident,
        Target(most=1024, of_ratio=False),
        1,
    )
    yield Figure(
        f"time a host, of {MANY:,}",
        "µs",
        many / MANY * 1e6,
        Target(most=1.5),
        1,
        f"of {FEW:,}",
        few / FEW * 1e6,
    )
    algebra = Framework().algebra(_ARCH)
    hosts = list(fleet(algebra, FEW))
    who = median(_timed(lambda: blockers(hosts)) for _ in range(3))
    yield _seconds(f"who blocks what among {FEW:,} hosts", who, 1, 3)
    yield from _all_pairs(algebra, runs)
    yield from _resolve(runs)


def _all_pairs(algebra: ModelAlgebra, runs: int) -> Iterator[Row]:
    def compare_all() -> None:
        models = [algebra.operand(model.name) for model in algebra.catalogue if not model.dynamic]
        for a in models:
            for b in models:
                algebra.compare(a, b)

    count = sum(not model.dynamic for model in algebra.catalogue)
    took = median(_timed(compare_all) for _ in range(runs))
    yield _seconds(f"compare all {count}² pairs of {_ARCH} models, expanded first", took, 1, runs)


def _resolve(runs: int) -> Iterator[Row]:
    """One model resolved: as a command, and in a process that has loaded the index."""
    listing: list[float] = []
    expanding: list[float] = []
    command = [sys.executable, "-m", "cpufw"]
    for _ in range(runs + 1):  # the first warms the index, and is left out
        listing.append(_timed(lambda: _quietly([*command, "list-models"])))
        expanding.append(
            _timed(lambda: _quietly([*command, "expand", _RESOLVED, "--format", "json"]))
        )
    pairs = zip(expanding[1:], listing[1:], strict=True)
    yield Figure(
        "cpufw expand, above cpufw list-models",
        "ms",
        median(ours - bare for ours, bare in pairs) * 1000,
        Target(most=10, of_ratio=False),
        runs,
        "cpufw list-models",
        median(listing[1:]) * 1000,
    )

    def load_and_resolve() -> None:
        Framework().algebra(_ARCH).expand(_RESOLVED)

    yield Figure(
        "plugins and index of all models loaded, one expanded; modules imported before",
        "ms",
        median(_timed(load_and_resolve) for _ in range(runs)) * 1000,
        Target(most=10, of_ratio=False),
        runs,
    )


def _quietly(command: list[str]) -> None:
    # As installed: compiled modules are kept, whatever is set here.
    environment = {key: value for key, value in os.environ.items() if key != _NO_BYTECODE}
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)


def _timed(action: Callable[[], object]) -> float:
    start = perf_counter()
    action()
    return perf_counter() - start


def _seconds(what: str, value: float, most: float, samples: int) -> Row:
    return Figure(what, "s", value, Target(most=most, of_ratio=False), samples)


def _elsewhere(hosts: int, runs: int) -> tuple[float, float]:
    """Seconds and peak MiB of a baseline in a process of its own, where nothing else counts."""
    command = [sys.executable, "-m", "benchmarks.algebra", str(hosts), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, resident = json.loads(done.stdout)
    return seconds, resident


def _main() -> None:
    hosts, runs = map(int, sys.argv[1:])
    algebra = Framework().algebra(_ARCH)
    baseline(algebra, fleet(algebra, 1))  # what is done once
    seconds = median(_timed(lambda: baseline(algebra, fleet(algebra, hosts))) for _ in range(runs))
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


if __name__ == "__main__":
    _main()
