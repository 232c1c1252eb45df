"""Why a model does not run on a host, in words an operator can act on."""

from __future__ import annotations

from typing import Any

import pytest

from cpufw.core.capture import HostCapture
from cpufw.core.model_algebra import ModelAlgebra
from cpufw.errors import ModelError, NotFoundError
from cpufw.fleet.explain import explain
from cpufw.framework import Framework


@pytest.fixture(scope="module")
def algebra(framework: Framework) -> ModelAlgebra:
    return framework.algebra("x86_64")


def host(algebra: ModelAlgebra, text: str, name: str = "old", **facts: Any) -> HostCapture:
    """A host that can give exactly what the CPU `text` has, and is one."""
    operand = algebra.operand(text)
    identity = {**operand.identity, "phys-bits": 46}
    return HostCapture(name, "x86_64", "made here", tuple(operand.features), identity, **facts)


def test_a_sentence_says_what_is_missing_and_what_runs(algebra: ModelAlgebra) -> None:
    old = host(algebra, "Haswell-v4,-pcid,-tsc-deadline")
    found = explain(algebra, "Haswell-v4", [old])
    assert found.sentence() == (
        "Haswell-v4 needs pcid, tsc-deadline; Haswell-v4,-pcid,-tsc-deadline runs; "
        "Westmere-v2 runs as it is"
    )
    assert not found.runs
    assert [(each.name, each.places, each.hosts) for each in found.missing] == [
        ("pcid", ("1.ECX:17",), ("old",)),
        ("tsc-deadline", ("1.ECX:24",), ("old",)),
    ]


def test_what_is_suggested_does_run(algebra: ModelAlgebra) -> None:
    for text in ("Nehalem", "Skylake-Client-v1,-smap", "EPYC-Rome", "Denverton", "qemu32"):
        there = host(algebra, text)
        for model, _ in algebra.named:
            found = explain(algebra, model.name, [there])
            for suggestion in (found.reduced, found.as_is):
                if suggestion is not None:
                    again = explain(algebra, suggestion, [there])
                    assert again.runs, f"{suggestion} on {text}: {again.sentence()}"
            assert found.runs or found.reduced or found.demands


def test_a_model_that_runs_needs_nothing(algebra: ModelAlgebra) -> None:
    found = explain(algebra, "Haswell-v4", [host(algebra, "Broadwell-v4")])
    assert found.runs
    assert (found.reduced, found.as_is, found.missing) == (None, None, ())
    assert found.sentence() == "Haswell-v4 runs as it is"


def test_what_requires_the_missing_feature_goes_with_it(algebra: ModelAlgebra) -> None:
    table = algebra.catalogue.table
    old = host(algebra, "Haswell-v4")
    old.features = tuple(name for name in old.features if name != "avx")
    found = explain(algebra, "Haswell-v4", [old])
    [missing] = found.missing
    assert missing.name == "avx"
    assert missing.required_by == ("fma", "f16c", "avx2")
    assert found.reduced is not None
    assert set(found.reduced.split(",")[1:]) == {"-avx", "-fma", "-f16c", "-avx2"}
    assert "avx2" in algebra.operand("Haswell-v4").features
    assert table.set(["avx2"]) <= old.supported_features(table)


def test_the_words_of_the_user_are_kept(algebra: ModelAlgebra) -> None:
    old = host(algebra, "Haswell-v4,-pcid,+pdpe1gb")
    found = explain(algebra, "Haswell-v4,+pdpe1gb,+smap,stepping=2,-abm", [old])
    assert found.reduced == "Haswell-v4,+pdpe1gb,stepping=2,-abm,-pcid,-smap"
    assert explain(algebra, found.reduced, [old]).runs


def test_address_bits_and_vendor(algebra: ModelAlgebra) -> None:
    there = host(algebra, "Haswell-v4")
    wide = explain(algebra, "Haswell-v4,phys-bits=48", [there])
    assert not wide.runs
    assert wide.demands == (("old", ("phys-bits",)),)
    assert wide.sentence() == "Haswell-v4,phys-bits=48 needs phys-bits; Haswell-v4 runs as it is"
    foreign = explain(algebra, "Opteron_G1", [there])
    assert foreign.runs
    assert foreign.differs == (("old", ("vendor",)),)


def test_what_the_accelerator_turns_off_is_not_missing(
    framework: Framework, algebra: ModelAlgebra
) -> None:
    there = host(algebra, "EPYC-Rome,-svm")
    nested = ["svm", "npt", "nrip-save"]
    assert [each.name for each in explain(algebra, "EPYC-Rome", [there]).missing] == nested
    capture = framework.architectures["x86_64"].capture
    assert capture is not None
    there.rules = capture()
    on, off = there.default_features(algebra.catalogue.table)
    assert "svm" in off
    there.features = (*there.features, *on)
    assert explain(algebra, "EPYC-Rome", [there]).runs
    # A user who asks for it is told.
    found = explain(algebra, "EPYC-Rome,+svm", [there])
    assert [each.name for each in found.missing] == nested
    there.features = tuple(set(there.features) - set(on))
    assert {each.name for each in explain(algebra, "EPYC-Rome", [there]).missing} == set(on - off)


def test_what_a_capture_does_not_say_is_marked(algebra: ModelAlgebra) -> None:
    there = host(algebra, "Haswell-v4", unknown=("7.0.EDX",))
    there.features = tuple(name for name in there.features if name not in ("spec-ctrl", "pcid"))
    found = explain(algebra, "Haswell-v4", [there])
    assert {each.name: each.unknown_on for each in found.missing} == {
        "pcid": (),
        "spec-ctrl": ("old",),
    }


def test_a_dynamic_model_runs_anywhere(algebra: ModelAlgebra) -> None:
    assert explain(algebra, "host", [host(algebra, "qemu32")]).runs


def test_of_several_hosts_each_is_named(algebra: ModelAlgebra) -> None:
    hosts = [
        host(algebra, "Haswell-v4", "new"),
        host(algebra, "Haswell-v4,-pcid", "middle"),
        host(algebra, "Haswell-v4,-pcid,-avx2", "old"),
    ]
    found = explain(algebra, "Haswell-v4", hosts)
    assert found.hosts == ("new", "middle", "old")
    assert {each.name: each.hosts for each in found.missing} == {
        "pcid": ("middle", "old"),
        "avx2": ("old",),
    }
    assert [(name, list(gain)) for name, gain in found.gains] == [("old", ["avx2"])]
    assert found.reduced == "Haswell-v4,-pcid,-avx2"
    assert found.as_is is not None
    assert all(explain(algebra, found.as_is, [each]).runs for each in hosts)


def test_bad_requests_are_refused(algebra: ModelAlgebra) -> None:
    with pytest.raises(ModelError, match="no hosts"):
        explain(algebra, "Haswell", [])
    with pytest.raises(NotFoundError, match="did you mean Haswell"):
        explain(algebra, "Haswel", [host(algebra, "Haswell")])
