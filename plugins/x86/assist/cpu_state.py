"""The state that an assisted instruction works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from cpufw_x86.assist.faults import STACK_FAULT, Fault, Unassisted, general_protection
from cpufw_x86.assist.physical import USER, WRITE
from cpufw_x86.kvm.native import ffi

if TYPE_CHECKING:
    from cpufw_x86.assist.hidden_state import HiddenState
    from cpufw_x86.assist.physical import PhysicalMemory
    from cpufw_x86.assist.vector_state import VectorState
    from cpufw_x86.kvm import Regs, Segment, Sregs

# Places in struct kvm_regs, which is eighteen words: the general registers by name.
RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP = range(8)
RIP, RFLAGS = 16, 17

PAGE = 0x1000

# Flags: Intel SDM vol. 1, 3.4.3.
CF, PF, AF, ZF, SF, TF, IF, DF, OF = (1 << bit for bit in (0, 2, 4, 6, 7, 8, 9, 10, 11))
RF, VM, AC = 1 << 16, 1 << 17, 1 << 18
ARITHMETIC_FLAGS = CF | PF | AF | ZF | SF | OF

CR0_PE, CR0_MP, CR0_EM, CR0_TS, CR0_PG = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 31
EFER_LMA = 1 << 10
CR4_TSD, CR4_OSFXSR, CR4_LA57 = 1 << 2, 1 << 9, 1 << 12
CR4_FSGSBASE, CR4_PCIDE, CR4_OSXSAVE, CR4_SMAP = 1 << 16, 1 << 17, 1 << 18, 1 << 21

_EXPAND_DOWN = 0b100  # of a data segment's type, Intel SDM vol. 3A, table 3-1
_CODE = 0b1000


_LOW_HALF, _HIGH_HALF, _TOP = 1 << 47, (1 << 64) - (1 << 47), 1 << 64  # of 48-bit addresses


def _segment_fault(segment: str) -> Fault:
    return Fault(STACK_FAULT, 0) if segment == "ss" else general_protection()


class Platform(Protocol):
    """What an instruction needs beyond registers and memory; each call is a system call."""

    def get_msr(self, index: int) -> int:
        """The MSR."""
        ...

    def get_xcr0(self) -> int:
        """XCR0."""
        ...

    def set_xcr0(self, value: int) -> None:
        """Set XCR0."""
        ...

    def flush_tlb(self) -> None:
        """Forget every translation."""
        ...


class CpuState:
    """One CPU: registers by number (`g[RAX]`), special registers, memory, vectors.

    `g` is struct kvm_regs as eighteen words; `words` are the guest's CPUID words (`"1.ECX"`);
    `hidden` is there on back ends that need it.
    """

    def __init__(
        self,
        regs: Regs,
        sregs: Sregs,
        memory: PhysicalMemory,
        vectors: VectorState,
        words: Mapping[str, int],
        platform: Platform,
        hidden: HiddenState | None = None,
    ) -> None:
        self.g: Any = ffi.cast("unsigned long long *", regs)
        self.sregs, self.memory, self.vectors = sregs, memory, vectors
        self.words, self.platform, self.hidden = words, platform, hidden
        self._features: dict[str, bool] = {}
        self._translation = ffi.new("struct cpufw_translation *")
        self.bits = 64
        """16, 32 or 64: the mode of the code segment."""
        self.sregs_changed = False
        self.trap: int | None = None
        """A vector to be raised after the instruction, with rip behind it."""
        self.trap_is_interrupt = False

    def begin(self) -> None:
        """Look at the mode; call it before each instruction."""
        cs = self.sregs.cs
        self.bits = 64 if cs.l else 32 if cs.db else 16
        self.sregs_changed = False
        self.trap = None

    @property
    def cpl(self) -> int:
        """The privilege level."""
        if not self.sregs.cr0 & CR0_PE:
            return 0
        return 3 if self.g[RFLAGS] & VM else self.sregs.ss.dpl

    def has(self, place: str) -> bool:
        """Whether the guest's CPUID has the feature bit, written `1.ECX:23`."""
        known = self._features.get(place)
        if known is None:
            word, _, bit = place.rpartition(":")
            known = self._features[place] = bool(self.words.get(word, 0) >> int(bit) & 1)
        return known

    def set_flags(self, mask: int, value: int) -> None:
        """Set the flags of `mask` to those in `value`."""
        self.g[RFLAGS] = self.g[RFLAGS] & ~mask | value

    # Memory

    def linear(self, segment: str, offset: int, length: int, write: bool) -> int:
        """The linear address of `length` bytes; raises #GP(0) or #SS(0) as the segment says."""
        if self.bits == 64:
            address = offset
            if segment == "gs" or segment == "fs":
                address = getattr(self.sregs, segment).base + offset & 0xFFFF_FFFF_FFFF_FFFF
            # Of most addresses it is clear without looking at the paging mode.
            if address < _LOW_HALF - length or _HIGH_HALF <= address < _TOP - length:
                return address
            bits = 56 if self.sregs.cr4 & CR4_LA57 else 47
            for end in (address, address + length - 1):
                if end >> bits not in (0, (1 << 64 - bits) - 1):
                    raise _segment_fault(segment)
            return address
        descriptor: Segment = getattr(self.sregs, segment)
        if self.sregs.cr0 & CR0_PE and not self.g[RFLAGS] & VM:
            self._check_segment(descriptor, offset, length, write, segment)
        elif offset + length - 1 > descriptor.limit:
            raise _segment_fault(segment)
        base: int = descriptor.base
        return base + offset & 0xFFFF_FFFF

    @staticmethod
    def _check_segment(segment: Segment, offset: int, length: int, write: bool, name: str) -> None:
        code = segment.type & _CODE
        if segment.unusable or (write and (code or not segment.type & 2)):
            raise _segment_fault(name)
        if code and not write and not segment.type & 2:  # execute only
            raise _segment_fault(name)
        last = offset + length - 1
        if segment.type & _EXPAND_DOWN and not code:
            if offset <= segment.limit or last > (0xFFFF_FFFF if segment.db else 0xFFFF):
                raise _segment_fault(name)
        elif last > segment.limit:
            raise _segment_fault(name)

    def physical(self, linear: int, *, write: bool, system: bool = False) -> int:
        """The guest-physical address; `system` accesses (descriptors) are a supervisor's."""
        access = WRITE if write else 0
        if not system and self.cpl == 3:
            access |= USER
        return self.memory.translate(self._translation, self.sregs, self.g[RFLAGS], linear, access)

    def read(self, linear: int, length: int, *, system: bool = False) -> bytes:
        """Memory at a linear address. Raises `Fault`, or `Unassisted` where there is no RAM."""
        first = PAGE - (linear & PAGE - 1)
        if length <= first:
            return self.memory.read(self.physical(linear, write=False, system=system), length)
        return self.read(linear, first, system=system) + self.read(
            self._next_page(linear), length - first, system=system
        )

    def check_writable(self, linear: int, length: int) -> list[tuple[int, int]]:
        """The guest-physical pieces of a range that may be written; raises `Fault` if it may not.

        Each is an address and a length.
        """
        places = []
        at, left = linear, length
        while left:
            step = min(left, PAGE - (at & PAGE - 1))
            places.append((self.physical(at, write=True), step))
            at, left = self._next_page(at), left - step
        return places

    def write(self, linear: int, data: bytes) -> None:
        """Write memory, all or nothing as far as page faults go."""
        done = 0
        for place, step in self.check_writable(linear, len(data)):
            self.memory.write(place, data[done : done + step])
            done += step

    def _next_page(self, linear: int) -> int:
        mask = 0xFFFF_FFFF_FFFF_FFFF if self.bits == 64 else 0xFFFF_FFFF
        return (linear & -PAGE) + PAGE & mask

    def update(self, linear: int, size: int, change: Callable[[bytes], bytes | None]) -> bytes:
        """Read, change and write `size` bytes atomically, as a locked instruction does.

        `change` returns what to write, None for nothing. What was read comes back. Raises
        `Unassisted` for an operand that is not naturally aligned.
        """
        if linear % size:
            raise Unassisted("an atomic access that is not aligned")
        place = self.physical(linear, write=True)
        while True:
            old = self.memory.read(place, size)
            new = change(old)
            if new is None or self.memory.compare_exchange(place, old, new):
                return old
