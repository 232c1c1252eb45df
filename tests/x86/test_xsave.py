"""Leaf 0xD against Intel SDM vol. 1, chapter 13."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw_x86.cpuid import CpuidTable
from cpufw_x86.xsave import components, xcr0_mask, xsave_leaves, xss_mask

XSAVE = {"1.ECX": 1 << 26}
AVX = {"1.ECX": 1 << 26 | 1 << 28}
AVX512 = {"7.0.EBX": 1 << 16}
PKU = {"7.0.ECX": 1 << 3}
MPX = {"7.0.EBX": 1 << 14}
AMX = {"7.0.EDX": 1 << 24}
XFD = {"D.1.EAX": 0x1F}
ARCH_LBR = {"7.0.EDX": 1 << 19}


def leaves(words: dict[str, int]) -> dict[int, tuple[int, ...]]:
    return {index: leaf.registers for (_, index), leaf in CpuidTable(xsave_leaves(words)).items()}


def test_nothing_without_xsave() -> None:
    assert leaves(AVX512 | PKU | {"D.1.EAX": 0xF}) == {}
    assert xcr0_mask(AVX512) == 0


@pytest.mark.parametrize(
    ("words", "xcr0", "standard", "compacted"),
    [
        # XCR0 mask; bytes in either format
        (XSAVE, 0x3, 576, 576),
        (AVX, 0x7, 832, 832),
        (AVX | MPX, 0x1F, 1088, 960),
        (AVX | PKU, 0x207, 2696, 840),
        (AVX | AVX512, 0xE7, 2688, 2432),  # as a Xeon of 2021 answers
        (AVX | AVX512 | PKU, 0x2E7, 2696, 2440),
        (AVX | AVX512 | PKU | AMX | XFD, 0x602E7, 11008, 10752),
    ],
)
def test_components_and_sizes(
    words: dict[str, int], xcr0: int, standard: int, compacted: int
) -> None:
    answers = leaves(words)

    assert answers[0] == (xcr0, 576, standard, 0)  # x87 alone is on after reset: 576 bytes
    assert answers[1][:2] == (words.get("D.1.EAX", 0), compacted)


def test_avx512_subleaves() -> None:
    answers = leaves(AVX | AVX512 | PKU)

    assert {index: answers[index] for index in (2, 5, 6, 7, 9)} == {
        2: (256, 576, 0, 0),
        5: (64, 1088, 0, 0),
        6: (512, 1152, 0, 0),
        7: (1024, 1664, 0, 0),
        9: (8, 2688, 0, 0),
    }


def test_tile_data_can_fault_only_with_xfd() -> None:
    assert leaves(AVX | AMX | XFD)[18] == (8192, 2816, 0b110, 0)
    assert leaves(AVX | AMX)[18] == (8192, 2816, 0b010, 0)
    assert leaves(AVX | AMX | XFD)[17] == (64, 2752, 0b010, 0)


def test_avx10_brings_the_avx512_state() -> None:
    assert xcr0_mask(AVX | {"7.1.EDX": 1 << 19}) == 0xE7


def test_supervisor_state_needs_xsaves() -> None:
    with_xsaves = AVX | ARCH_LBR | {"D.1.EAX": 1 << 3}
    assert xss_mask(AVX | ARCH_LBR) == 0
    assert xss_mask(with_xsaves) == 1 << 15
    answers = leaves(with_xsaves)
    assert answers[1] == (1 << 3, 832 + 808, 1 << 15, 0)
    assert answers[15] == (808, 0, 0b001, 0)
    assert answers[0][2] == 832  # the standard format never holds it


@given(
    st.fixed_dictionaries(
        {word: st.integers(0, 0xFFFFFFFF) for word in ("7.0.EBX", "7.0.ECX", "7.0.EDX", "D.1.EAX")}
    )
)
def test_components_never_overlap_in_the_standard_format(words: dict[str, int]) -> None:
    parts = [part for part in components(words | AVX) if part.offset is not None]
    spans = sorted((part.offset, part.offset + part.size) for part in parts if part.offset)

    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
