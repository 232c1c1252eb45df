"""Interrupts, flags, descriptors and other system instructions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cpufw_x86.assist import table
from cpufw_x86.assist.cpu_state import (
    AC,
    ARITHMETIC_FLAGS,
    CF,
    CR4_FSGSBASE,
    CR4_PCIDE,
    CR4_TSD,
    OF,
    RAX,
    RCX,
    RDX,
    RFLAGS,
    ZF,
)
from cpufw_x86.assist.faults import BREAKPOINT, OVERFLOW, general_protection, invalid_opcode
from cpufw_x86.assist.table import Assisted

if TYPE_CHECKING:
    from cpufw_x86.assist.cpu_state import CpuState
    from cpufw_x86.assist.decode import Instruction

_LOW = 0xFFFF_FFFF
_IA32_TSC, _IA32_TSC_AUX = 0x10, 0xC000_0103
_CACHE_LINE = 64


def _int3(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    cpu.trap = BREAKPOINT
    cpu.trap_is_interrupt = False


def _into(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    if cpu.g[RFLAGS] & OF:
        cpu.trap = OVERFLOW
        cpu.trap_is_interrupt = False


def _int(cpu: CpuState, instruction: Instruction) -> None:
    vector: Any = instruction.operands[0]
    cpu.trap = vector.read(cpu)
    cpu.trap_is_interrupt = True


def _undefined(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    raise invalid_opcode()


def _clac(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    if cpu.cpl:
        raise invalid_opcode()
    cpu.set_flags(AC, 0)


def _stac(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    if cpu.cpl:
        raise invalid_opcode()
    cpu.set_flags(AC, AC)


def _cache_line(cpu: CpuState, instruction: Instruction) -> None:
    place: Any = instruction.operands[0]
    cpu.physical(place.linear(cpu, 1), write=False)


# INVPCID types: Intel SDM vol. 2A, INVPCID.
_ONE_ADDRESS, _ONE_CONTEXT, _ALL_WITH_GLOBALS, _ALL = range(4)
_PCIDS = 0xFFF


def _invpcid(cpu: CpuState, instruction: Instruction) -> None:
    kind_register: Any = instruction.operands[0]
    place: Any = instruction.operands[1]
    if cpu.cpl:
        raise general_protection()
    kind = kind_register.read(cpu)
    descriptor = place.load(cpu, 16)
    low = int.from_bytes(descriptor[:8], "little")
    address = int.from_bytes(descriptor[8:], "little")
    pcid = low & _PCIDS
    if kind > _ALL or (kind <= _ONE_CONTEXT and low > _PCIDS):
        raise general_protection()
    if kind <= _ONE_CONTEXT and pcid and not cpu.sregs.cr4 & CR4_PCIDE:
        raise general_protection()
    if kind == _ONE_ADDRESS and cpu.bits == 64 and not _canonical(address):
        raise general_protection()
    cpu.platform.flush_tlb()


def _canonical(address: int) -> bool:
    return address >> 47 in (0, 0x1_FFFF)


def _rdpru(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    # AMD APM vol. 3, RDPRU: 0 is MPERF, 1 is APERF; others read as zero.
    msr = {0: 0xE7, 1: 0xE8}.get(cpu.g[RCX] & _LOW)
    value = cpu.platform.get_msr(msr) if msr else 0
    cpu.g[RAX], cpu.g[RDX] = value & _LOW, value >> 32


def _xgetbv(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    number = cpu.g[RCX] & _LOW
    if number == 0:
        value = cpu.platform.get_xcr0()
    elif number == 1 and cpu.has("D.1.EAX:2"):
        value = cpu.platform.get_xcr0() & cpu.vectors.in_use
    else:
        raise general_protection()
    cpu.g[RAX], cpu.g[RDX] = value & _LOW, value >> 32


def _xsetbv(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    value = cpu.g[RAX] & _LOW | (cpu.g[RDX] & _LOW) << 32
    allowed = cpu.words.get("D.0.EAX", 0) | cpu.words.get("D.0.EDX", 0) << 32
    x87, sse_avx, avx512 = 1, 0b110, 0b1110_0000
    if cpu.cpl or cpu.g[RCX] & _LOW or value & ~allowed or not value & x87:
        raise general_protection()
    if value & 0b100 and not value & 0b10:
        raise general_protection()
    if value & avx512 and (value & avx512 != avx512 or value & sse_avx != sse_avx):
        raise general_protection()
    cpu.platform.set_xcr0(value)


_FS_GS_BASE = ("rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase")


def _segment_base(cpu: CpuState, instruction: Instruction) -> None:
    register: Any = instruction.operands[0]
    segment = cpu.sregs.fs if "fs" in instruction.name else cpu.sregs.gs
    if instruction.name.startswith("rd"):
        register.write(cpu, segment.base & (1 << 8 * register.size) - 1)
        return
    value = register.read(cpu)
    if not _canonical(value):
        raise general_protection()
    segment.base = value
    cpu.sregs_changed = True


def _check_fs_gs_base(cpu: CpuState) -> None:
    if cpu.bits != 64 or not cpu.sregs.cr4 & CR4_FSGSBASE:
        raise invalid_opcode()


def _random(cpu: CpuState, instruction: Instruction) -> None:
    register: Any = instruction.operands[0]
    register.write(cpu, int.from_bytes(os.urandom(register.size), "little"))
    cpu.set_flags(ARITHMETIC_FLAGS, CF)


def _rdpid(cpu: CpuState, instruction: Instruction) -> None:
    register: Any = instruction.operands[0]
    register.write(cpu, cpu.platform.get_msr(_IA32_TSC_AUX))


def _rdtscp(cpu: CpuState, instruction: Instruction) -> None:  # noqa: ARG001
    if cpu.sregs.cr4 & CR4_TSD and cpu.cpl:
        raise general_protection()
    time, number = cpu.platform.get_msr(_IA32_TSC), cpu.platform.get_msr(_IA32_TSC_AUX)
    g = cpu.g
    g[RAX], g[RDX], g[RCX] = time & _LOW, time >> 32, number & _LOW


def _clzero(cpu: CpuState, instruction: Instruction) -> None:
    offset = cpu.g[RAX] & -_CACHE_LINE & (1 << 8 * instruction.address_size) - 1
    cpu.write(cpu.linear("ds", offset, _CACHE_LINE, True), bytes(_CACHE_LINE))


def _nothing(cpu: CpuState, instruction: Instruction) -> None:
    """Barriers and hints: leaving the guest orders more than they do. MWAIT may end at once."""


# Descriptors: Intel SDM vol. 3A, 3.4.5 and 3.5. Of system descriptors, which types LAR and LSL
# accept, outside and inside IA-32e mode (vol. 2A, LAR and LSL).
_LAR_TYPES = (frozenset({1, 2, 3, 4, 5, 9, 11, 12}), frozenset({2, 9, 11, 12}))
_LSL_TYPES = (frozenset({1, 2, 3, 9, 11}), frozenset({2, 9, 11}))
_S, _CODE_BIT, _CONFORMING, _READABLE_OR_WRITABLE, _G = 1 << 44, 1 << 43, 1 << 42, 1 << 41, 1 << 55
_LAR_BITS = 0x00F0_FF00


def _lar(cpu: CpuState, instruction: Instruction) -> None:
    to, selector = _to_and_selector(cpu, instruction)
    descriptor = _descriptor(cpu, selector, _LAR_TYPES)
    if descriptor is not None:
        to.write(cpu, descriptor >> 32 & _LAR_BITS)
    cpu.set_flags(ZF, 0 if descriptor is None else ZF)


def _lsl(cpu: CpuState, instruction: Instruction) -> None:
    to, selector = _to_and_selector(cpu, instruction)
    descriptor = _descriptor(cpu, selector, _LSL_TYPES)
    if descriptor is not None:
        limit = descriptor & 0xFFFF | descriptor >> 32 & 0xF_0000
        to.write(cpu, limit << 12 | 0xFFF if descriptor & _G else limit)
    cpu.set_flags(ZF, 0 if descriptor is None else ZF)


def _verr(cpu: CpuState, instruction: Instruction) -> None:
    descriptor = _segment(cpu, instruction)
    readable = descriptor is not None and (
        not descriptor & _CODE_BIT or bool(descriptor & _READABLE_OR_WRITABLE)
    )
    cpu.set_flags(ZF, ZF if readable else 0)


def _verw(cpu: CpuState, instruction: Instruction) -> None:
    descriptor = _segment(cpu, instruction)
    writable = descriptor is not None and (
        not descriptor & _CODE_BIT and bool(descriptor & _READABLE_OR_WRITABLE)
    )
    cpu.set_flags(ZF, ZF if writable else 0)


def _to_and_selector(cpu: CpuState, instruction: Instruction) -> tuple[Any, int]:
    to: Any = instruction.operands[0]
    return to, _selector(cpu, instruction.operands[1])


def _selector(cpu: CpuState, source: Any) -> int:
    # A selector in memory is 16 bits, whatever the operand size.
    load = getattr(source, "load", None)
    value: int = int.from_bytes(load(cpu, 2), "little") if load else source.read(cpu)
    return value & 0xFFFF


def _segment(cpu: CpuState, instruction: Instruction) -> int | None:
    """The code or data descriptor that an operand names, None for system ones."""
    return _descriptor(cpu, _selector(cpu, instruction.operands[0]), (frozenset(), frozenset()))


def _descriptor(
    cpu: CpuState, selector: int, types: tuple[frozenset[int], frozenset[int]]
) -> int | None:
    """The descriptor of `selector` if the CPU may look at it, else None."""
    sregs, index = cpu.sregs, selector & ~7
    if not selector & ~3:
        return None
    base, limit = sregs.gdt.base, sregs.gdt.limit
    if selector & 4:
        if sregs.ldt.unusable or not sregs.ldt.present:
            return None
        base, limit = sregs.ldt.base, sregs.ldt.limit
    if index + 7 > limit:
        return None
    descriptor = int.from_bytes(cpu.read(base + index, 8, system=True), "little")
    conforming = descriptor & _S and descriptor & _CODE_BIT and descriptor & _CONFORMING
    if not descriptor & _S and (descriptor >> 40 & 0xF) not in types[bool(sregs.efer & 1 << 10)]:
        return None
    privilege = descriptor >> 45 & 3
    if not conforming and (privilege < cpu.cpl or privilege < selector & 3):
        return None
    return descriptor


TABLE = {
    "int3": Assisted(_int3),
    "int": Assisted(_int),
    "into": Assisted(_into),
    "ud0": Assisted(_undefined),
    "ud1": Assisted(_undefined),
    "ud2": Assisted(_undefined),
    "clac": Assisted(_clac, ("7.0.EBX:20",)),
    "stac": Assisted(_stac, ("7.0.EBX:20",)),
    "clwb": Assisted(_cache_line, ("7.0.EBX:24",)),
    "clflushopt": Assisted(_cache_line, ("7.0.EBX:23",)),
    "clflush": Assisted(_cache_line, ("1.EDX:19",)),
    "invpcid": Assisted(_invpcid, ("7.0.EBX:10",)),
    "rdpru": Assisted(_rdpru, ("80000008.EBX:4",)),
    **{name: Assisted(_segment_base, ("7.0.EBX:0",), _check_fs_gs_base) for name in _FS_GS_BASE},
    "rdtscp": Assisted(_rdtscp, ("80000001.EDX:27",)),
    "clzero": Assisted(_clzero, ("80000008.EBX:0",)),
    "monitor": Assisted(_nothing, ("1.ECX:3",), table.check_supervisor),
    "mwait": Assisted(_nothing, ("1.ECX:3",), table.check_supervisor),
    "rdsspd": Assisted(_nothing),
    "rdsspq": Assisted(_nothing),
    "rdrand": Assisted(_random, ("1.ECX:30",)),
    "rdseed": Assisted(_random, ("7.0.EBX:18",)),
    "rdpid": Assisted(_rdpid, ("7.0.ECX:22",)),
    "serialize": Assisted(_nothing, ("7.0.EDX:14",)),
    "wbnoinvd": Assisted(_nothing, ("80000008.EBX:9",), table.check_supervisor),
    "cldemote": Assisted(_nothing),
    "xgetbv": Assisted(_xgetbv, ("1.ECX:26",), table.check_osxsave),
    "xsetbv": Assisted(_xsetbv, ("1.ECX:26",), table.check_osxsave),
    "lar": Assisted(_lar, (), table.check_protected),
    "lsl": Assisted(_lsl, (), table.check_protected),
    "verr": Assisted(_verr, (), table.check_protected),
    "verw": Assisted(_verw, (), table.check_protected),
}
