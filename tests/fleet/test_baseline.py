"""What many hosts have in common, and which of them keeps what from the others."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpufw.core.algebra import Operand, Relation
from cpufw.core.features import FeatureSet
from cpufw.core.model_algebra import ModelAlgebra
from cpufw.errors import ModelError
from cpufw.fleet.baseline import baseline
from cpufw.fleet.blockers import blockers
from cpufw.framework import Framework


@pytest.fixture(scope="module")
def algebra(framework: Framework) -> ModelAlgebra:
    return framework.algebra("x86_64")


def cpus(algebra: ModelAlgebra, *texts: str) -> list[Operand]:
    return [algebra.operand(text) for text in texts]


# --- baseline -----------------------------------------------------------------------------


def test_the_baseline_of_versions_of_a_model_is_what_they_share(algebra: ModelAlgebra) -> None:
    found = baseline(algebra, cpus(algebra, "Haswell-v1", "Haswell-v4"))
    assert found.cpu.features == algebra.operand("Haswell-v2").features
    assert found.static is not None
    assert found.static.name == "base"
    assert algebra.operand(found.static).features == found.cpu.features
    assert found.named is not None
    assert str(found.named) == "Haswell-v2"


def test_the_named_model_says_what_it_adds_and_drops(algebra: ModelAlgebra) -> None:
    [host] = cpus(algebra, "Haswell-v4,-pcid,-tsc-deadline,+pdpe1gb")
    named = baseline(algebra, [host]).named
    assert named is not None
    assert named.name == "Haswell-v4"
    assert (list(named.adds), list(named.drops)) == (["pdpe1gb"], ["pcid", "tsc-deadline"])
    assert str(named) == "Haswell-v4,+pdpe1gb,-pcid,-tsc-deadline"


def test_a_model_that_came_too_early_for_what_it_would_add_is_not_named(
    framework: Framework,
) -> None:
    mainframes = framework.algebra("s390x")
    found = baseline(mainframes, cpus(mainframes, "gen16a-base", "gen16a"))
    assert found.named is not None
    assert mainframes.operand(str(found.named)).features == found.cpu.features


def test_what_comes_along_with_an_added_feature_and_is_too_much_is_dropped(
    algebra: ModelAlgebra,
) -> None:
    [host] = cpus(algebra, "Haswell-v4,+vmx,-vmx-ept")
    named = baseline(algebra, [host]).named
    assert named is not None
    assert "vmx" in named.adds
    assert "vmx-ept" in named.drops
    assert algebra.operand(str(named)).features == host.features


def test_what_cannot_migrate_is_left_out(algebra: ModelAlgebra) -> None:
    table = algebra.catalogue.table
    name = next(iter(table.unmigratable))
    [plain] = cpus(algebra, "SapphireRapids")
    host = plain._replace(features=plain.features | table.set([name]).with_requirements())
    found = baseline(algebra, [host, host])
    assert name not in found.cpu.features
    assert plain.features - table.unmigratable <= found.cpu.features


def test_vendors_have_no_baseline(algebra: ModelAlgebra) -> None:
    with pytest.raises(ModelError, match="different vendors"):
        baseline(algebra, cpus(algebra, "Haswell", "EPYC"))


@settings(max_examples=30)
@given(st.data())
def test_the_named_form_is_the_same_cpu_and_runs_on_every_host(
    algebra: ModelAlgebra, data: st.DataObject
) -> None:
    intel = [each for _, each in algebra.named if each.identity.get("vendor") == "GenuineIntel"]
    hosts = data.draw(st.lists(st.sampled_from(intel), min_size=1, max_size=4))
    found = baseline(algebra, hosts)
    assert found.named is not None
    assert found.static is not None
    assert algebra.operand(str(found.named)).features == found.cpu.features
    assert algebra.compare(found.static, found.cpu).relation is Relation.IDENTICAL
    for host in hosts:
        assert found.cpu.features <= host.features


def test_a_hundred_thousand_hosts_pass_by_and_none_is_kept(algebra: ModelAlgebra) -> None:
    [start] = cpus(algebra, "SapphireRapids")
    least = start.features - start.features.table.set(["avx512f", "avx512dq", "pcid"])

    def hosts() -> Iterator[Operand]:
        random = Random(1)
        for number in range(100_000):
            mask = least.mask | start.features.mask & random.getrandbits(len(least.table))
            yield Operand(f"host{number}", FeatureSet(least.table, mask), {**start.identity})

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = baseline(algebra, hosts())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 10_000  # 100 bytes a host
    assert found.cpu.features == start.features.without(start.features - least)


# --- blockers -----------------------------------------------------------------------------


def test_each_feature_names_the_hosts_that_lack_it(algebra: ModelAlgebra) -> None:
    a, b, c = cpus(algebra, "Haswell-v4", "Haswell-v4,-avx2", "Haswell-v4,-avx2,-pcid")
    hosts = [a._replace(name="a"), b._replace(name="b"), c._replace(name="c")]
    found = blockers(hosts)
    assert found.lacking == {"pcid": ("c",), "avx2": ("b", "c")}
    assert [(name, list(gain)) for name, gain in found.gains] == [("c", ["pcid"])]


def test_the_greatest_gain_comes_first(algebra: ModelAlgebra) -> None:
    hosts = cpus(algebra, "Haswell-v4", "Haswell-v4,-avx", "Haswell-v4,-pcid")
    gains = {name: set(gain) for name, gain in blockers(hosts).gains}
    assert list(gains) == ["Haswell-v4,-avx", "Haswell-v4,-pcid"]
    assert gains["Haswell-v4,-avx"] == {"avx", "avx2", "fma", "f16c"}


def test_a_gain_counts_only_if_the_rest_has_what_it_requires(algebra: ModelAlgebra) -> None:
    whole, no_avx = cpus(algebra, "Haswell-v4", "Haswell-v4,-avx")
    torn = whole._replace(name="torn", features=whole.features - whole.features.table.set(["avx"]))
    found = blockers([whole, torn, no_avx])
    # Without the second the rest would all have avx2 … but not avx, which it requires.
    assert found.lacking["avx"] == ("torn", "Haswell-v4,-avx")
    assert found.lacking["avx2"] == ("Haswell-v4,-avx",)
    assert found.gains == ()


def test_only_what_is_wanted_is_looked_at(algebra: ModelAlgebra) -> None:
    hosts = cpus(algebra, "Haswell-v4", "Haswell-v4,-avx2,-pcid")
    table = algebra.catalogue.table
    found = blockers(hosts, table.set(["pcid", "avx512f"]))
    assert set(found.lacking) == {"pcid", "avx512f"}
    assert [list(gain) for _, gain in found.gains] == [["pcid"]]
    with pytest.raises(ModelError, match="no hosts"):
        blockers([])


@settings(max_examples=40)
@given(st.data())
def test_gains_are_what_the_baseline_of_the_rest_has_more(
    algebra: ModelAlgebra, data: st.DataObject
) -> None:
    [start] = cpus(algebra, "Broadwell-v4")
    names = list(start.features)
    hosts = []
    for number in range(data.draw(st.integers(2, 5))):
        off = data.draw(st.lists(st.sampled_from(names), max_size=3))
        less = start.features.without(start.features.table.set(off))
        hosts.append(Operand(f"host{number}", less, start.identity))
    whole = baseline(algebra, hosts).cpu.features
    expected = {}
    for host in hosts:
        rest = baseline(algebra, [each for each in hosts if each is not host]).cpu.features
        if rest - whole:
            expected[host.name] = rest - whole
    assert dict(blockers(hosts).gains) == expected
