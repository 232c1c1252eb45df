"""Looking into a guest: registers, memory and code as one of its vCPUs sees them."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from cpufw.errors import GuestError, KvmError
from cpufw.kvm.native import lib
from cpufw_x86.memory_map import HOLE_END

if TYPE_CHECKING:
    from cpufw.core.hotplug import Slot
    from cpufw_x86.kvm import X86VCPU, Fpu, Segment, Sregs
    from cpufw_x86.kvm.structs import DescriptorTable
    from cpufw_x86.memory import GuestRam

_PAGE = 0x1000
_ADDRESSES = 1 << 64
_LONGEST_INSTRUCTION = 15  # Intel SDM vol. 2A, 2.3.11
_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp")
_NUMBERED = tuple(f"r{number}" for number in range(8, 16))
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
_PROTECTED = 1 << 0  # CR0.PE
_LONG = 1 << 10  # EFER.LMA
# RFLAGS in the order that they are shown (Intel SDM vol. 1, 3.4.3).
_FLAGS = ((10, "D"), (11, "O"), (7, "S"), (6, "Z"), (4, "A"), (2, "P"), (0, "C"))
# System descriptor types by number (Intel SDM vol. 3A, table 3-2).
_RESERVED = "Reserved"
_SYSTEM_16_32 = (
    _RESERVED, "TSS16-avl", "LDT", "TSS16-busy", "CallGate16", "TaskGate", "IntGate16",
    "TrapGate16", _RESERVED, "TSS32-avl", _RESERVED, "TSS32-busy", "CallGate32", _RESERVED,
    "IntGate32", "TrapGate32",
)  # fmt: skip
_SYSTEM_64 = {2: "LDT", 9: "TSS64-avl", 11: "TSS64-busy", 12: "CallGate64", 14: "IntGate64"}
_SYSTEM_64[15] = "TrapGate64"

Instruction = tuple[int, bytes, str]
"""Address, code and text."""


class Inspection:
    """What a board with these vCPUs and this RAM offers for looking into its guest."""

    ram: GuestRam

    @abstractmethod
    def held(self) -> AbstractContextManager[None]:
        """In this block no vCPU runs."""

    def registers(self, slot: Slot) -> dict[str, int]:
        """Values by name: `rax`, also `eax`; `cs`, `cr3`, `efer`, `fs_base`.

        `pc`, `rip` and `eip` are the linear address of the next instruction.
        """
        with self.held():
            vcpu = _vcpu(slot)
            regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
            found = {name: getattr(regs, name) for name in (*_GENERAL, *_NUMBERED)}
            found |= {f"e{name[1:]}": found[name] for name in _GENERAL}
            found |= dict.fromkeys(("pc", "rip", "eip"), _code_address(regs.rip, sregs))
            found |= dict.fromkeys(("rflags", "eflags"), regs.rflags)
            found |= {name: getattr(sregs, name).selector for name in _SEGMENTS}
            found |= {f"{name}_base": getattr(sregs, name).base for name in _SEGMENTS}
            names = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer")
            return found | {name: getattr(sregs, name) for name in names}

    def registers_text(self, slot: Slot) -> str:
        """All registers as HMP's `info registers` shows them, in QEMU's layout."""
        with self.held():
            vcpu = _vcpu(slot)
            sregs = vcpu.get_sregs()
            is_long = bool(sregs.efer & _LONG)
            digits = 16 if is_long else 8
            lines = _general_lines(vcpu, sregs, is_long)
            lines += [
                _segment(name, getattr(sregs, name), sregs, digits)
                for name in (*_SEGMENTS, "ldt", "tr")
            ]
            lines += [_table("GDT", sregs.gdt, digits), _table("IDT", sregs.idt, digits)]
            lines.append(
                f"CR0={sregs.cr0:08x} CR2={sregs.cr2:0{digits}x} CR3={sregs.cr3:0{digits}x} "
                f"CR4={sregs.cr4:08x}"
            )
            debug = vcpu.get_debugregs()
            lines.append(" ".join(f"DR{n}={debug.db[n]:016x}" for n in range(4)) + " ")
            lines.append(f"DR6={debug.dr6:016x} DR7={debug.dr7:016x}")
            lines.append(f"EFER={sregs.efer:016x}")
            lines += _fpu_lines(vcpu.get_fpu(), 16 if is_long else 8)
        return "\n".join(lines)

    def read_memory(self, slot: Slot, address: int, size: int, physical: bool = False) -> bytes:
        """`size` bytes from the linear `address` as the CPU of `slot` maps it, or physical ones.

        Fewer if there is no RAM further on; `physical` needs no CPU in `slot`.
        """
        with self.held():
            if physical:
                return self._read_physical(address, size)
            return self._read_linear(_vcpu(slot), address, size)

    def disassemble(
        self, slot: Slot, address: int, count: int, physical: bool = False
    ) -> list[Instruction]:
        """Up to `count` instructions from `address`, in AT&T's syntax as QEMU shows them.

        Decoded in the mode that the CPU of `slot` is in; fewer if there is no RAM further on.
        """
        import capstone

        with self.held():
            cs = _vcpu(slot).get_sregs().cs
            code = self.read_memory(slot, address, count * _LONGEST_INSTRUCTION, physical)
        mode = capstone.CS_MODE_32 if cs.db else capstone.CS_MODE_16
        engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if cs.l else mode)
        engine.syntax = capstone.CS_OPT_SYNTAX_ATT
        found: list[Instruction] = []
        at = 0
        while at < len(code) and len(found) < count:
            one = next(engine.disasm_lite(code[at:], address + at, 1), None)
            if one is None:
                found.append((address + at, code[at : at + 1], f"{'.byte':<8} {code[at]:#04x}"))
                at += 1
                continue
            _, size, mnemonic, operands = one
            text = f"{mnemonic:<8} {operands}".rstrip()
            found.append((address + at, code[at : at + size], text))
            at += size
        return found

    def _read_physical(self, address: int, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = self._read_block(address + len(found), size - len(found))
            if not part:
                break
            found += part
        return found

    def _read_block(self, address: int, size: int) -> bytes:
        rom = self.ram.rom
        start = HOLE_END - len(rom)
        if start <= address < HOLE_END:
            return rom[address - start : address - start + size]
        return self.ram.read_some(address, size)

    def _read_linear(self, vcpu: X86VCPU, address: int, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            here = address + len(found)
            step = min(size - len(found), _PAGE - here % _PAGE)
            try:
                place = vcpu.translate(here % _ADDRESSES)
            except KvmError:
                break
            part = self._read_physical(place.physical_address, step) if place.valid else b""
            found += part
            if len(part) < step:
                break
        return bytes(found)


def _vcpu(slot: Slot) -> X86VCPU:
    if slot.cpu is None:
        raise GuestError(f"slot {slot.index} holds no CPU")
    vcpu: X86VCPU = slot.cpu.vcpu.vcpu  # type: ignore[attr-defined]
    return vcpu


def _code_address(rip: int, sregs: Sregs) -> int:
    return rip if sregs.cs.l else (sregs.cs.base + rip) & 0xFFFF_FFFF


def _general_lines(vcpu: X86VCPU, sregs: Sregs, is_long: bool) -> list[str]:
    regs = vcpu.get_regs()
    flags = "".join(letter if regs.rflags >> bit & 1 else "-" for bit, letter in _FLAGS)
    events = vcpu.get_vcpu_events()
    halted = vcpu.get_mp_state() != lib.KVM_MP_STATE_RUNNABLE
    state = (
        f"[{flags}] CPL={sregs.ss.dpl} II={int(bool(events.interrupt.shadow))} A20=1 "
        f"SMM={events.smi.smm} HLT={int(halted)}"
    )
    if is_long:
        shown = [f"{n.upper():<3}={getattr(regs, n):016x}" for n in (*_GENERAL, *_NUMBERED)]
        last = f"RIP={regs.rip:016x} RFL={regs.rflags:08x} {state}"
    else:
        shown = [f"E{n[1:].upper()}={getattr(regs, n) & 0xFFFF_FFFF:08x}" for n in _GENERAL]
        last = f"EIP={regs.rip & 0xFFFF_FFFF:08x} EFL={regs.rflags:08x} {state}"
    return [*(" ".join(shown[at : at + 4]) for at in range(0, len(shown), 4)), last]


def _segment(name: str, segment: Segment, sregs: Sregs, digits: int) -> str:
    flags = 0
    if not segment.unusable:
        # The upper word of a descriptor (Intel SDM vol. 3A, 3.4.5).
        places = ((segment.type, 8), (segment.s, 12), (segment.dpl, 13), (segment.present, 15))
        more = ((segment.avl, 20), (segment.l, 21), (segment.db, 22), (segment.g, 23))
        flags = sum(value << place for value, place in (*places, *more))
    text = (
        f"{name.upper():<3}={segment.selector:04x} {segment.base:0{digits}x} "
        f"{segment.limit:08x} {flags:08x}"
    )
    if not sregs.cr0 & _PROTECTED or segment.unusable or not segment.present:
        return text
    return f"{text} DPL={segment.dpl} {_kind(segment, sregs)}"


def _kind(segment: Segment, sregs: Sregs) -> str:
    kind, is_long = segment.type, bool(sregs.efer & _LONG)
    if not segment.s:
        return _SYSTEM_64.get(kind, _RESERVED) if is_long else _SYSTEM_16_32[kind]
    accessed = "A" if kind & 1 else "-"
    if kind & 8:
        name = "CS64" if segment.l else "CS32" if segment.db else "CS16"
        return f"{name} [{'C' if kind & 4 else '-'}{'R' if kind & 2 else '-'}{accessed}]"
    name = "DS  " if segment.db or is_long else "DS16"
    return f"{name} [{'E' if kind & 4 else '-'}{'W' if kind & 2 else '-'}{accessed}]"


def _table(name: str, table: DescriptorTable, digits: int) -> str:
    return f"{name}=     {table.base:0{digits}x} {table.limit:08x}"


def _fpu_lines(fpu: Fpu, vectors: int) -> list[str]:
    lines = [
        f"FCW={fpu.fcw:04x} FSW={fpu.fsw:04x} [ST={fpu.fsw >> 11 & 7}] FTW={fpu.ftwx:02x} "
        f"MXCSR={fpu.mxcsr:08x}"
    ]
    stack = [bytes(fpu.fpr[number]) for number in range(8)]
    shown = [
        f"FPR{number}={int.from_bytes(value[:8], 'little'):016x} "
        f"{int.from_bytes(value[8:10], 'little'):04x}"
        for number, value in enumerate(stack)
    ]
    lines += [" ".join(shown[at : at + 2]) for at in range(0, 8, 2)]
    values = [bytes(fpu.xmm[number]) for number in range(vectors)]
    shown = [
        f"XMM{number:02d}={int.from_bytes(value[8:], 'little'):016x} "
        f"{int.from_bytes(value[:8], 'little'):016x}"
        for number, value in enumerate(values)
    ]
    return [*lines, *(" ".join(shown[at : at + 2]) for at in range(0, vectors, 2))]
