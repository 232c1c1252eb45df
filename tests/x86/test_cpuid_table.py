from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu_reference import identity_of, topology, words_of

from cpufw.errors import DefinitionError
from cpufw_x86.cpuid import CPUID_WORDS, CpuidLeaf, CpuidTable
from cpufw_x86.synthesis import synthesise

ONE_CPU = topology()


def table_of(name: str) -> CpuidTable:
    return synthesise(identity_of(name, words_of(name)), ONE_CPU, ONE_CPU.slot(0))


SMALL = CpuidTable(
    [
        CpuidLeaf(0x80000000, 0, 0x80000001, 1, 2, 3),
        CpuidLeaf(0, 0, 0xD, 0x756E6547, 0x6C65746E, 0x49656E69),
        CpuidLeaf(1, 0, 0x306C4, 0x800, 0x10, 0x20),
        CpuidLeaf(0xB, 0, 1, 2, 0x100, 7),
        CpuidLeaf(0xD, 1, 0xF, 0x340, 0, 0),
        CpuidLeaf(0xD, 0, 7, 0x240, 0x340, 0),
    ]
)


@pytest.mark.parametrize(
    ("function", "index", "expected"),
    [
        (1, 0, (0x306C4, 0x800, 0x10, 0x20)),
        (1, 5, (0x306C4, 0x800, 0x10, 0x20)),  # ECX does not matter to this leaf
        (6, 0, (0, 0, 0, 0)),  # in range, but nothing there
        (0xD, 1, (0xF, 0x340, 0, 0)),
        (0xD, 9, (0, 0, 0, 0)),  # no such component
        (0xB, 0, (1, 2, 0x100, 7)),
        (0xB, 0x105, (0, 0, 5, 7)),  # the level asked for, and the APIC id even there
        (0xE, 0, (7, 0x240, 0x340, 0)),  # beyond the basic limit: the highest basic leaf
        (0x20000000, 1, (0xF, 0x340, 0, 0)),
        (0x40000000, 0, (7, 0x240, 0x340, 0)),  # no hypervisor range at all
        (0x80000001, 0, (0, 0, 0, 0)),
        (0x80000002, 0, (7, 0x240, 0x340, 0)),
        (0x80860000, 1, (0xF, 0x340, 0, 0)),
        (0xC0000000, 0, (7, 0x240, 0x340, 0)),
        (0xFFFFFFFF, 9, (0, 0, 0, 0)),
    ],
)
def test_lookup_answers_as_the_instruction(
    function: int, index: int, expected: tuple[int, ...]
) -> None:
    assert SMALL.lookup(function, index) == expected


def test_leaves_come_ordered_whatever_the_order_given() -> None:
    assert list(SMALL) == [(0, 0), (1, 0), (0xB, 0), (0xD, 0), (0xD, 1), (0x80000000, 0)]


def test_replacing_leaves_keeps_the_original() -> None:
    changed = SMALL.replaced([CpuidLeaf(1, 0, 9, 9, 9, 9), CpuidLeaf(7, 0, 0, 1, 0, 0)])

    assert changed.lookup(1) == (9, 9, 9, 9)
    assert list(changed)[2] == (7, 0)
    assert SMALL.lookup(1) == (0x306C4, 0x800, 0x10, 0x20)
    assert (7, 0) not in SMALL


@pytest.mark.parametrize("name", ["pentium3", "Skylake-Server-v5", "EPYC-Genoa-v1", "YongFeng-v1"])
def test_words_are_the_features_that_were_put_in(name: str) -> None:
    words = {key: value for key, value in words_of(name).items() if key in CPUID_WORDS}
    read_back = table_of(name).words()
    read_back.pop("40000001.EAX", 0)

    if "D.0.EAX" in words:  # the reference lacks AVX-512's components
        words["D.0.EAX"] |= read_back["D.0.EAX"] & 0xE0
    assert read_back == words


def test_avx10_version_is_no_feature() -> None:
    name = "GraniteRapids-v2"
    table = table_of(name)

    assert table.lookup(0x24) == (0, 0x00070001, 0, 0)
    assert table.words()["24.0.EBX"] == words_of(name)["24.0.EBX"] == 0x70000


def test_raw_text_has_the_format_of_the_cpuid_tool() -> None:
    assert SMALL.to_raw().splitlines()[:3] == [
        "CPU:",
        "   0x00000000 0x00: eax=0x0000000d ebx=0x756e6547 ecx=0x6c65746e edx=0x49656e69",
        "   0x00000001 0x00: eax=0x000306c4 ebx=0x00000800 ecx=0x00000010 edx=0x00000020",
    ]


@pytest.mark.skipif(not shutil.which("cpuid"), reason="Debian's cpuid is not installed")
def test_the_cpuid_tool_reads_our_raw_text(tmp_path: Path) -> None:
    dump = tmp_path / "haswell"
    dump.write_text(table_of("Haswell-v1").to_raw())
    command = ["cpuid", "-1", "-f", str(dump)]

    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    raw = subprocess.run([*command, "-r"], capture_output=True, text=True, check=True).stdout

    assert "Intel Core Processor (Haswell)" in shown
    assert "KVMKVMKVM" in shown
    assert raw == table_of("Haswell-v1").to_raw()


@pytest.mark.skipif(not shutil.which("cpuid"), reason="Debian's cpuid is not installed")
def test_a_dump_of_this_machine_is_read_whole() -> None:
    raw = subprocess.run(["cpuid", "-r", "-1"], capture_output=True, text=True, check=True).stdout

    table = CpuidTable.from_raw(raw)
    assert len(table) == len(raw.splitlines()) - 1
    assert set(raw.splitlines()) <= set(table.to_raw().splitlines())


registers = st.integers(0, 0xFFFFFFFF)
functions = st.sampled_from([1, 4, 7, 0xD, 0x40000000, 0x80000000, 0x80000001, 0xC0000000])
leaf = st.builds(
    CpuidLeaf, functions, st.integers(0, 63), registers, registers, registers, registers
)


@given(st.lists(leaf), st.integers(0, 0x24), functions, st.integers(0, 64))
def test_raw_text_loses_nothing(
    leaves: list[CpuidLeaf], level: int, function: int, index: int
) -> None:
    table = CpuidTable([*leaves, CpuidLeaf(0, 0, level, 2, 3, 4)])
    read_back = CpuidTable.from_raw(table.to_raw())

    assert read_back.lookup(function, index) == table.lookup(function, index)
    assert set(table.items()) <= set(read_back.items())
    assert read_back.to_raw() == table.to_raw()


def test_only_the_first_cpu_of_a_dump_is_read() -> None:
    line = "   0x00000000 0x00: eax=0x0000000{} ebx=0x0 ecx=0x0 edx=0x0\n"
    text = "CPU 0:\n" + line.format(1) + "CPU 1:\n" + line.format(2)

    assert CpuidTable.from_raw(text).lookup(0) == (1, 0, 0, 0)


def test_every_bad_line_of_a_dump_is_named() -> None:
    line = "0x00000001 0x00: eax=0x1 ebx=0x2 ecx=0x3 edx=0x4"
    with pytest.raises(DefinitionError) as caught:
        CpuidTable.from_raw(f"CPU:\n{line}\nnonsense\n{line}\n0x1: eax=0x1")

    assert [str(problem) for problem in caught.value.problems] == [
        "line 3: 'nonsense' is not a line of `cpuid -r`",
        "line 4: leaf 0x1.0 is repeated",
        "line 5: '0x1: eax=0x1' is not a line of `cpuid -r`",
    ]


def test_empty_dump_is_refused() -> None:
    with pytest.raises(DefinitionError, match="leaf 0 is missing"):
        CpuidTable.from_raw("CPU:\n")
