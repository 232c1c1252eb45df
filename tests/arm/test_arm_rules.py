"""How Arm CPUs compare, and what several of them have in common."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpufw.core.algebra import Operand, Relation, common, compare
from cpufw.core.features import FeatureTable
from cpufw.errors import ModelError
from cpufw.framework import default
from cpufw_arm.fields import Order, field_of, layout
from cpufw_arm.rules import ArmRules

RULES = ArmRules()
A57 = default().catalogue("aarch64")["cortex-a57"].identity
EMPTY = FeatureTable("aarch64", []).empty


def a57(midr: int = A57["midr"], **fields: int) -> dict[str, Any]:
    """Cortex-A57 with some fields of ID registers changed: `ID_AA64ISAR0_EL1__AES=0`."""
    registers = dict(A57["registers"])
    for name, value in fields.items():
        field = field_of(name.replace("__", "."))
        assert field is not None
        registers[field.register] = field.put(registers.get(field.register, 0), value)
    return {**A57, "midr": midr, "registers": registers}


@pytest.mark.parametrize(
    ("change", "relation"),
    [
        ({"ID_AA64ISAR0_EL1__AES": 0}, Relation.SUBSET),
        ({"ID_AA64ISAR0_EL1__Atomic": 2}, Relation.SUPERSET),
        ({"ID_AA64PFR0_EL1__FP": 0xF}, Relation.SUBSET),  # all ones: no floating point
        ({"ID_AA64MMFR0_EL1__TGran4": 0xF}, Relation.SUBSET),  # no granule of 4 KiB
        ({"ID_AA64MMFR0_EL1__PARange": 3}, Relation.SUBSET),
        ({"CTR_EL0__CWG": 5}, Relation.SUBSET),  # a larger granule asks less
        ({"CTR_EL0__CWG": 0}, Relation.SUBSET),  # none given asks least
        ({"CTR_EL0__DIC": 1}, Relation.SUPERSET),
        ({"CTR_EL0__L1Ip": 2}, Relation.INCOMPATIBLE),
        ({"DCZID_EL0__BS": 5}, Relation.INCOMPATIBLE),
        ({"PMCEID0_EL0__ID": 0x20003}, Relation.SUPERSET),
        ({"PMCEID0_EL0__ID": 0x2}, Relation.INCOMPATIBLE),
    ],
)
def test_a_field_decides_by_its_own_order(change: dict[str, int], relation: Relation) -> None:
    (name,) = (each.replace("__", ".") for each in change)
    assert RULES.compare_identity(a57(**change), A57) == (relation, (name,))
    assert RULES.compare_identity(A57, a57(**change)) == (relation.mirror, (name,))


def test_fields_that_pull_apart_are_incompatible() -> None:
    other = a57(ID_AA64ISAR0_EL1__AES=0, ID_AA64ISAR0_EL1__Atomic=2)
    names = ("ID_AA64ISAR0_EL1.AES", "ID_AA64ISAR0_EL1.Atomic")
    assert RULES.compare_identity(other, A57) == (Relation.INCOMPATIBLE, names)
    both = RULES.common_identity([other, A57])
    assert both["registers"] == a57(ID_AA64ISAR0_EL1__AES=0)["registers"]


def test_another_part_is_incompatible_and_says_so() -> None:
    n1 = default().catalogue("aarch64")["neoverse-n1"].identity
    assert RULES.compare_identity(A57, n1) == (Relation.INCOMPATIBLE, ("midr",))
    sentence = "Arm CPUs of different parts .* midr is 0x411fd070 and 0x414fd0c1"
    with pytest.raises(ModelError, match=sentence):
        RULES.common_identity([A57, n1])


def test_a_revision_asks_nothing_of_a_host() -> None:
    older = a57(midr=0x410FD070)
    assert RULES.compare_identity(A57, older) == (Relation.IDENTICAL, ("midr",))
    assert RULES.common_identity([A57, older])["midr"] == 0x410FD070


def test_values_that_no_host_can_share_are_named() -> None:
    with pytest.raises(ModelError, match=r"DCZID_EL0.BS is 4 and 5: no value of it works on both"):
        RULES.common_identity([A57, a57(DCZID_EL0__BS=5)])


def test_steppings_of_the_pxa270_stand_in_for_one_another() -> None:
    algebra = default().algebra("arm")
    comparison = algebra.compare("pxa270-c5", "pxa270-a0")
    assert comparison.relation is Relation.SUPERSET
    assert comparison.responsible == ("midr",)
    assert algebra.compare("pxa270-a0", "pxa270").relation is Relation.IDENTICAL


def test_features_compare_within_a_model() -> None:
    algebra = default().algebra("aarch64")
    assert algebra.compare("max", "max,sve=off").relation is Relation.SUPERSET
    comparison = algebra.compare("neoverse-n1,pmu=off", "neoverse-n1")
    assert comparison.relation is Relation.SUBSET
    assert comparison.responsible == ("pmu",)


FIELDS = [
    field
    for register in ("ID_AA64ISAR0_EL1", "ID_AA64MMFR0_EL1", "CTR_EL0", "PMCEID0_EL0")
    for field in layout(register)
    if "[" not in field.name and field.order is not Order.EXACT
]
CPUS = st.builds(
    lambda midr, fields: a57(midr, **fields),
    st.sampled_from([0x410FD070, 0x411FD070]),
    st.dictionaries(
        st.sampled_from([field.name.replace(".", "__") for field in FIELDS]),
        st.integers(0, 1),
        max_size=4,
    ),
)


def operand(identity: dict[str, Any]) -> Operand:
    return Operand("cpu", EMPTY, identity)


@settings(max_examples=50)
@given(st.lists(CPUS, min_size=1, max_size=4))
def test_what_is_common_can_run_wherever_each_can(identities: list[dict[str, Any]]) -> None:
    shared = common([operand(each) for each in identities], RULES)
    for each in identities:
        relation = compare(shared, operand(each), RULES).relation
        assert relation in (Relation.IDENTICAL, Relation.SUBSET)


@settings(max_examples=50)
@given(CPUS, CPUS, CPUS)
def test_comparing_is_a_partial_order(
    a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]
) -> None:
    one, two, three = operand(a), operand(b), operand(c)
    assert compare(two, one, RULES).relation is compare(one, two, RULES).relation.mirror
    assert (compare(one, two, RULES).relation is Relation.IDENTICAL) == (a == b)
    below = (Relation.SUBSET, Relation.IDENTICAL)
    if compare(one, two, RULES).relation in below and compare(two, three, RULES).relation in below:
        assert compare(one, three, RULES).relation in below
