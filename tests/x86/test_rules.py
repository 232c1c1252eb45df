"""What of an x86 CPU's identity a host must give, and what is only a name."""

from __future__ import annotations

from typing import Any

import pytest

from cpufw.core.algebra import Relation, common
from cpufw.core.model_algebra import ModelAlgebra
from cpufw.errors import ModelError
from cpufw.framework import Framework


@pytest.fixture
def algebra(framework: Framework) -> ModelAlgebra:
    return framework.algebra("x86_64")


@pytest.mark.parametrize(
    ("a", "b", "relation", "values"),
    [
        ("Haswell-v1", "Haswell-v2", Relation.SUPERSET, ("stepping", "model-id")),
        ("Haswell", "Haswell-v1", Relation.IDENTICAL, ()),
        ("Haswell-noTSX", "Haswell-v2", Relation.IDENTICAL, ()),
        ("Nehalem", "Conroe", Relation.SUPERSET, ("model", "model-id", "min-level")),
        # The server's model number is the lower one: what decides are the features.
        (
            "Skylake-Server-v2",
            "Skylake-Client-v2",
            Relation.SUPERSET,
            ("model", "stepping", "model-id"),
        ),
        ("Haswell", "Haswell,phys-bits=46", Relation.SUBSET, ("phys-bits",)),
        ("Haswell,phys-bits=46", "Haswell,phys-bits=39", Relation.SUPERSET, ("phys-bits",)),
        ("Haswell,phys-bits=46,-avx2", "Haswell", Relation.INCOMPATIBLE, ("phys-bits",)),
        ("Haswell", "Haswell,stepping=3", Relation.SUPERSET, ("stepping",)),
        ("Haswell", "Haswell,kvm=on", Relation.IDENTICAL, ()),
        ("Haswell", "Haswell,kvm=off", Relation.SUBSET, ("kvm",)),
        ("Haswell", "Haswell,level=0xd", Relation.SUBSET, ("level", "min-level")),
        ("Haswell", "Haswell,min-level=0xd", Relation.IDENTICAL, ()),
    ],
)
def test_what_decides_and_what_is_named(
    algebra: ModelAlgebra, a: str, b: str, relation: Relation, values: tuple[str, ...]
) -> None:
    found = algebra.compare(a, b)
    assert (found.relation, found.values) == (relation, values)
    assert algebra.compare(b, a).relation is relation.mirror


def test_vendors_do_not_mix(algebra: ModelAlgebra) -> None:
    found = algebra.compare("kvm64", "qemu64")
    assert found.relation is Relation.INCOMPATIBLE
    assert "vendor" in found.values
    with pytest.raises(ModelError, match="vendor is AuthenticAMD and GenuineIntel"):
        common([algebra.operand("kvm64"), algebra.operand("qemu64")], algebra.rules)


def test_base_is_a_subset_of_every_model(algebra: ModelAlgebra) -> None:
    for model, operand in algebra.named:
        found = algebra.compare("base", operand)
        assert found.relation is Relation.SUBSET, model.name


def common_of(algebra: ModelAlgebra, *texts: str) -> dict[str, Any]:
    return dict(common([algebra.operand(text) for text in texts], algebra.rules).identity)


def test_a_baseline_has_the_whole_signature_of_its_oldest_cpu(algebra: ModelAlgebra) -> None:
    assert common_of(algebra, "Skylake-Server", "Haswell-v2", "Broadwell") == {
        "vendor": "GenuineIntel",
        "family": 6,
        "model": 60,
        "stepping": 1,
        "model-id": "Intel Core Processor (Haswell, no TSX)",
        "min-level": 0xD,
        "min-xlevel": 0x80000008,
    }


def test_a_baseline_has_the_least_of_limits_and_what_all_agree_on(algebra: ModelAlgebra) -> None:
    found = common_of(
        algebra,
        "Haswell,phys-bits=46,kvm=off,l3-cache=off,level=0x14",
        "Haswell,phys-bits=39,kvm=off,min-level=0xb",
    )
    assert (found["phys-bits"], found["min-level"]) == (39, 0xB)
    assert found["kvm"] is False
    assert not {"l3-cache", "level"} & found.keys()
    assert common_of(algebra, *["Haswell,level=0x14"] * 2)["level"] == 0x14
    assert "phys-bits" not in common_of(algebra, "Haswell,phys-bits=46", "Haswell")


def test_a_guest_cannot_tell_a_model_from_its_static_expansion(algebra: ModelAlgebra) -> None:
    for model in algebra.catalogue:
        if model.dynamic:
            continue
        named, static = algebra.cpu(model.name), algebra.cpu(algebra.expand(model.name))
        named.realize()
        static.realize()
        leaves: Any = named.cpuid.values()  # type: ignore[attr-defined]
        assert list(leaves) == list(static.cpuid.values()), model.name  # type: ignore[attr-defined]
        assert static.granted == named.granted


@pytest.mark.parametrize("text", ["Haswell,level=0xb", "EPYC-Rome,+vmx,phys-bits=48,kvm=off"])
def test_nor_with_properties(algebra: ModelAlgebra, text: str) -> None:
    leaves = []
    for what in (text, algebra.expand(text), algebra.expand(text, "full")):
        cpu: Any = algebra.cpu(what)
        cpu.realize()
        leaves.append(list(cpu.cpuid.values()))
    assert leaves[0] == leaves[1] == leaves[2]
