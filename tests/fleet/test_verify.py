"""What was asked for against what was granted: by feature, and bit by bit."""

from __future__ import annotations

import pytest

from cpufw.errors import ModelError
from cpufw.fleet.verify import Verification, verify, word_differences
from cpufw.framework import Framework


def test_words_are_compared_bit_by_bit_with_names(framework: Framework) -> None:
    table = framework.catalogue("x86_64").table
    asked = {"7.0.EBX": 1 << 5 | 1 << 8, "1.EDX": 0b1, "MSR.48C": 1 << 41, "9.EAX": 1}
    given = {"7.0.EBX": 1 << 8 | 1 << 13, "1.EDX": 0b1}
    ebx, msr, other = word_differences(table, asked, given)
    assert (ebx.word, ebx.missing, ebx.added, ebx.width) == (
        "7.0.EBX", ("avx2",), ("zero-fcs-fds",), 32
    )  # fmt: skip
    assert (msr.word, msr.missing, msr.width) == ("MSR.48C", ("vmx-invept-single-context",), 64)
    assert (other.word, other.missing) == ("9.EAX", ("bit 0",))  # nobody owns it, and it is last
    assert (other.requested, other.granted) == (1, 0)


def test_without_an_accelerator_everything_is_as_asked_for(framework: Framework) -> None:
    rules = framework.architectures["x86_64"].capture
    assert rules is not None
    for model in ("Haswell-v4", "EPYC-Genoa", "Icelake-Server,+vmx"):
        with framework.machine("none", cpu=model) as machine:
            boot = machine.slots[0].cpu
            assert boot is not None
            requested, granted = rules().read_back(boot)
            assert requested == granted
            assert any(word.startswith("7.") for word in requested)


def test_a_machine_that_runs_nothing_grants_nothing(framework: Framework) -> None:
    with pytest.raises(ModelError, match="machine type none runs nothing"):
        verify(framework, "Haswell", "none")


@pytest.fixture(scope="module")
def verified(framework: Framework) -> Verification:
    return verify(framework, "Haswell-v4")


@pytest.mark.kvm
def test_requested_is_granted_and_unavailable(verified: Verification) -> None:
    assert verified.granted | verified.unavailable == verified.requested
    assert not verified.granted & verified.unavailable
    assert not verified.extra & verified.requested
    assert verified.accelerator == "kvm"


@pytest.mark.kvm
def test_every_feature_that_is_not_granted_is_a_missing_bit_and_the_other_way_round(
    verified: Verification,
) -> None:
    table = verified.requested.table
    missing = {name for word in verified.words for name in word.missing if name in table}
    assert missing == set(verified.unavailable)
    added = {name for word in verified.words for name in word.added if name in table}
    assert set(verified.extra) <= added
    for word in verified.words:
        bits = len(word.missing) + len(word.added)
        assert bits == (word.requested ^ word.granted).bit_count()


@pytest.mark.kvm
def test_a_guest_reads_what_was_granted(verified: Verification) -> None:
    assert {"1.ECX", "1.EDX", "7.0.EBX", "80000001.EDX"} <= verified.seen.keys()
    for word in verified.words:
        assert word.seen in (None, word.granted), word
        assert word.seen == verified.seen.get(word.word)


def test_a_guest_that_reads_otherwise_is_a_difference(framework: Framework) -> None:
    table = framework.catalogue("x86_64").table
    words = {"1.EDX": 0b111, "7.0.EBX": 1}
    assert not list(word_differences(table, words, words, {"1.EDX": 0b111}))
    (only,) = word_differences(table, words, words, {"1.EDX": 0b101})
    assert (only.word, only.requested, only.granted, only.seen) == ("1.EDX", 7, 7, 5)


@pytest.mark.kvm
def test_what_no_cpu_has_is_reported_missing(framework: Framework) -> None:
    found = verify(framework, "486,+ia64")
    assert not found.same
    assert "ia64" in found.unavailable
    (word,) = (each for each in found.words if each.word == "1.EDX")
    assert "ia64" in word.missing
    assert word.requested >> 30 & 1
    assert not word.granted >> 30 & 1


@pytest.mark.ordinary_kvm
def test_an_ordinary_kvm_grants_a_modest_cpu_exactly(framework: Framework) -> None:
    found = verify(framework, "pentium3,-vme")
    assert found.same, found.words
