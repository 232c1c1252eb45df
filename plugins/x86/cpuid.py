"""What the CPUID instruction answers on one CPU, as a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from cpufw.errors import DefinitionError

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX."""

REGISTER_NAMES = ("EAX", "EBX", "ECX", "EDX")

BASIC_BASE = 0x0
HYPERVISOR_BASE = 0x40000000
KVM_BASE_BESIDE_HYPERV = 0x40000100
"""Where KVM's leaves are when Hyper-V's are at the range's beginning."""
HYPERV_INTERFACE = int.from_bytes(b"Hv#1", "little")
"""Leaf 0x40000001's EAX where the leaves from 0x40000000 on are Hyper-V's (TLFS 2.4.2)."""
EXTENDED_BASE = 0x80000000
CENTAUR_BASE = 0xC0000000

EXTENDED_TOPOLOGY_FUNCTIONS = frozenset({0xB, 0x1F})

INDEXED_FUNCTIONS = frozenset(
    {0x4, 0x7, 0xB, 0xD, 0xF, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1B, 0x1D, 0x1E, 0x1F, 0x20, 0x23}
    | {0x24, 0x8000001D, 0x80000020, 0x80000026}
)
"""The functions whose answer depends on ECX (Intel SDM vol. 2A CPUID; AMD APM vol. 3 E.4)."""

CPUID_WORDS = (
    "1.EDX", "1.ECX", "6.EAX", "7.0.EBX", "7.0.ECX", "7.0.EDX", "7.1.EAX", "7.1.EDX", "7.2.EDX",
    "D.0.EAX", "D.0.EDX", "D.1.EAX", "D.1.ECX", "D.1.EDX", "12.0.EAX", "12.0.EBX", "12.1.EAX",
    "14.0.ECX", "24.0.EBX", "40000001.EAX", "40000001.EDX", "80000001.EDX", "80000001.ECX",
    "80000007.EBX", "80000007.EDX", "80000008.EBX", "8000000A.EDX", "80000021.EAX",
    "80000021.EBX", "80000022.EAX", "C0000001.EDX",
)  # fmt: skip
"""The registers that hold feature bits, written leaf.subleaf.register."""

_FEATURE_MASKS = {
    "14.0.ECX": 0x80000000,  # the low bits describe output schemes, not features of a model
    "24.0.EBX": 0x00070000,  # the low byte is AVX10's version number
}

_RAW_LINE = re.compile(
    r"\s*0x([0-9a-fA-F]{1,8}) 0x([0-9a-fA-F]{1,8}):"
    r" eax=0x([0-9a-fA-F]{1,8}) ebx=0x([0-9a-fA-F]{1,8})"
    r" ecx=0x([0-9a-fA-F]{1,8}) edx=0x([0-9a-fA-F]{1,8})\s*"
)
_RAW_HEADER = re.compile(r"\s*CPU( \d+)?:\s*")


@lru_cache(maxsize=256)
def word_place(name: str) -> tuple[int, int, int]:
    """Where a word like `7.0.EBX` or `80000001.EDX` is: function, index, register (0 = EAX)."""
    function, *index, register = name.split(".")
    return int(function, 16), int(index[0]) if index else 0, REGISTER_NAMES.index(register)


_WORD_PLACES = tuple((name, *word_place(name)) for name in CPUID_WORDS)
_leaf_key = itemgetter(0, 1)  # function and index of a CpuidLeaf


class CpuidLeaf(NamedTuple):
    """One answer of CPUID: four 32-bit registers for a function (EAX) and an index (ECX)."""

    function: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    eax: int
    ebx: int
    ecx: int
    edx: int

    @property
    def indexed(self) -> bool:
        """Whether ECX selects the answer (KVM_CPUID_FLAG_SIGNIFCANT_INDEX)."""
        return self.index > 0 or self.function in INDEXED_FUNCTIONS

    @property
    def registers(self) -> Registers:
        """EAX, EBX, ECX, EDX."""
        return self[2:]


class CpuidTable(Mapping[tuple[int, int], CpuidLeaf]):
    """Every leaf of one CPU, ordered by (function, index); never changes.

    A leaf that is in range but absent is all zeros, as in KVM.
    """

    __slots__ = ("_leaves",)

    def __init__(self, leaves: Iterable[CpuidLeaf]) -> None:
        ordered = sorted(leaves, key=_leaf_key)
        self._leaves: dict[tuple[int, int], CpuidLeaf] = {_leaf_key(leaf): leaf for leaf in ordered}

    def replaced(self, leaves: Iterable[CpuidLeaf]) -> CpuidTable:
        """This table with `leaves` in place of those of the same function and index."""
        merged = self._leaves | {_leaf_key(leaf): leaf for leaf in leaves}
        if len(merged) > len(self._leaves):
            return CpuidTable(merged.values())
        table = CpuidTable(())
        table._leaves = merged  # same keys, so still in order
        return table

    def __getitem__(self, key: tuple[int, int]) -> CpuidLeaf:
        return self._leaves[key]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CpuidTable) and self._leaves == other._leaves

    def __hash__(self) -> int:
        return hash(tuple(self._leaves.values()))

    def __repr__(self) -> str:
        return f"CpuidTable({len(self)} leaves)"

    def limit(self, base: int) -> int | None:
        """The highest function of the range that starts at `base`; None where there is none."""
        head = self._leaves.get((base, 0))
        return head.eax if head else None

    def lookup(self, function: int, index: int = 0) -> Registers:
        """What the CPUID instruction answers, also where the table has no such leaf.

        A function beyond its range's limit answers as the highest basic one (Intel SDM vol. 2A,
        CPUID); a subleaf that does not exist is zero, except that the topology leaves repeat the
        index and the APIC id in it.
        """
        limit = self.limit(_range_base(function))
        if limit is None or function > limit:
            function = self.limit(BASIC_BASE) or 0
        leaf = self._leaves.get((function, index))
        if leaf:
            return leaf.registers
        first = self._leaves.get((function, 0))
        if first is None:
            return 0, 0, 0, 0
        if function in EXTENDED_TOPOLOGY_FUNCTIONS and first.ebx:  # zero: the CPU lacks the leaf
            return 0, 0, index & 0xFF, first.edx
        return (0, 0, 0, 0) if first.indexed else first.registers

    def words(self) -> dict[str, int]:
        """The feature words that are not zero: `{"1.EDX": 0x78bfbff, "7.0.EBX": …}`."""
        words = {}
        interface = self._leaves.get((HYPERVISOR_BASE + 1, 0))
        moved = interface is not None and interface.eax == HYPERV_INTERFACE
        for name, function, index, register in _WORD_PLACES:
            if moved and function == HYPERVISOR_BASE + 1:
                function = KVM_BASE_BESIDE_HYPERV + 1
            leaf = self._leaves.get((function, index))
            if leaf:
                value = leaf.registers[register] & _FEATURE_MASKS.get(name, 0xFFFFFFFF)
                if value:
                    words[name] = value
        return words

    def to_raw(self) -> str:
        """The text that `cpuid -r -1` prints for such a CPU: every function in range, zeros too."""
        lines = ["CPU:"]
        lines += [
            f"   {leaf.function:#010x} {leaf.index:#04x}:"
            f" eax={leaf.eax:#010x} ebx={leaf.ebx:#010x} ecx={leaf.ecx:#010x} edx={leaf.edx:#010x}"
            for leaf in CpuidTable([*self._absent_leaves(), *self.values()]).values()
        ]
        return "\n".join(lines) + "\n"

    def _absent_leaves(self) -> Iterator[CpuidLeaf]:
        """A leaf of zeros for each function in range that has none."""
        present = {function for function, _ in self._leaves}
        for base in (
            *(BASIC_BASE, HYPERVISOR_BASE, KVM_BASE_BESIDE_HYPERV),
            *(EXTENDED_BASE, CENTAUR_BASE),
        ):
            limit = self.limit(base) or 0
            # A dump may claim any limit; no range of a real CPU has more functions than this.
            for function in range(base, min(limit, base + 0xFF) + 1):
                if function not in present:
                    yield CpuidLeaf(function, 0, 0, 0, 0, 0)

    @classmethod
    def from_raw(cls, text: str) -> CpuidTable:
        """The first CPU of a dump in the format of `cpuid -r`.

        Raises `DefinitionError` with every line that is not of that format or repeats a leaf.
        """
        leaves: dict[tuple[int, int], CpuidLeaf] = {}
        problems = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            if _RAW_HEADER.fullmatch(line):
                if leaves:
                    break
                continue
            match = _RAW_LINE.fullmatch(line)
            if not match:
                problems.append(f"line {number}: '{line.strip()}' is not a line of `cpuid -r`")
                continue
            leaf = CpuidLeaf(*(int(field, 16) for field in match.groups()))
            if (leaf.function, leaf.index) in leaves:
                problems.append(f"line {number}: leaf {leaf.function:#x}.{leaf.index} is repeated")
            leaves[leaf.function, leaf.index] = leaf
        if not problems and (BASIC_BASE, 0) not in leaves:
            problems.append("leaf 0 is missing; expected the output of `cpuid -r`")
        if problems:
            raise DefinitionError(problems)
        return cls(leaves.values())


def _range_base(function: int) -> int:
    """The head of the range that holds `function`; its EAX is the range's limit."""
    if function >> 28 == HYPERVISOR_BASE >> 28:  # each hypervisor's leaves are a range
        return function & 0xFFFFFF00
    return function & 0xC0000000
