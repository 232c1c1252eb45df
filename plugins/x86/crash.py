"""What a user is told when a guest dies: the reason, the registers, the code around rip."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cpufw.errors import KvmError
from cpufw.kvm import Exit, InternalErrorExit, ShutdownExit
from cpufw.kvm.native import lib
from cpufw_x86.kvm import X86VCPU, Sregs
from cpufw_x86.memory import GuestRam

_CR0_PE = 1 << 0
_GENERAL = (
    ("rax", "rbx", "rcx", "rdx"),
    ("rsi", "rdi", "rbp", "rsp"),
    ("r8", "r9", "r10", "r11"),
    ("r12", "r13", "r14", "r15"),
)
_LONGEST_INSTRUCTION = 15  # Intel SDM vol. 2A, 2.3.11
_SHOWN_BEFORE, _SHOWN_AFTER = 3, 6
_READ_BEFORE = 48
_NO_CODE = bytes(8)  # they would read as instructions, but nobody writes them
_MAX_LINEAR_32 = 0xFFFF_FFFF

Instruction = tuple[int, int, str, str]  # address, size, mnemonic, operands


def place_text(vcpu: X86VCPU, ram: GuestRam) -> str:
    """What a vCPU does, after a colon: its registers and code, if the guest has started it."""
    state = vcpu.get_mp_state()
    if state in (lib.KVM_MP_STATE_UNINITIALIZED, lib.KVM_MP_STATE_INIT_RECEIVED):
        return ": the guest has not started it"
    halted = " halted" if state == lib.KVM_MP_STATE_HALTED else ""
    return f":{halted}\n{registers_text(vcpu)}\n{code_text(vcpu, ram)}"


def death_text(vcpu: X86VCPU, exit: Exit | None, ram: GuestRam) -> str:
    """Where the vCPU was when the guest died of `exit`."""
    failed = exit.instruction if isinstance(exit, InternalErrorExit) else b""
    try:
        registers = registers_text(vcpu)
        if isinstance(exit, ShutdownExit) and is_power_on_state(vcpu):
            lost = "KVM reset the registers, as it does on AMD-V: what was there is lost"
            return f"{registers}\n{lost}"
        return f"{registers}\n{code_text(vcpu, ram, failed)}"
    except KvmError as error:
        return f"its registers cannot be read: {error}"


def registers_text(vcpu: X86VCPU) -> str:
    """The general, segment and control registers, several a line."""
    regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    lines = [f"rip {regs.rip:016x}  rflags {regs.rflags:08x}  {_mode(sregs)}"]
    lines += ["  ".join(f"{n:>3} {getattr(regs, n):016x}" for n in row) for row in _GENERAL]
    lines.append(
        "  ".join(
            f"{name} {getattr(sregs, name).selector:04x}:{getattr(sregs, name).base:x}"
            for name in ("cs", "ss", "ds", "es", "fs", "gs")
        )
    )
    lines.append(
        f"cr0 {sregs.cr0:x}  cr2 {sregs.cr2:x}  cr3 {sregs.cr3:x}  cr4 {sregs.cr4:x}  "
        f"efer {sregs.efer:x}"
    )
    return "\n".join(lines)


def is_power_on_state(vcpu: X86VCPU) -> bool:
    """Whether the registers are those of a processor that was just reset.

    On AMD-V hosts KVM resets a vCPU that triple-faults, so what it was doing is lost.
    """
    # Intel SDM vol. 3A, table 11-1.
    return vcpu.get_regs().rip == 0xFFF0 and vcpu.get_sregs().cs.base == 0xFFFF_0000


def code_text(vcpu: X86VCPU, ram: GuestRam, failed: bytes = b"") -> str:
    """The instructions around rip, disassembled; `failed` stands in for unreadable memory.

    `->` marks the one at rip. Those before it are marked `?`: where an x86 instruction begins
    cannot be known from the bytes alone, they are the most likely reading.
    """
    regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    linear = regs.rip if sregs.cs.l else sregs.cs.base + regs.rip & _MAX_LINEAR_32
    code = _read_linear(vcpu, ram, linear, _LONGEST_INSTRUCTION * _SHOWN_AFTER) or failed
    if not code:
        return f"-> {linear:#x}: there is no RAM at this address"
    import capstone  # needed only when a guest has died

    bits = capstone.CS_MODE_64 if sregs.cs.l else capstone.CS_MODE_32
    if not sregs.cs.l and not sregs.cs.db:
        bits = capstone.CS_MODE_16
    engine = capstone.Cs(capstone.CS_ARCH_X86, bits)
    lines = _before(engine, _read_before(vcpu, ram, linear), linear)
    after = list(engine.disasm_lite(code, linear, _SHOWN_AFTER))
    lines += [_line("->" if i[0] == linear else "  ", code[i[0] - linear :], i) for i in after]
    if not after:
        lines.append(f"-> {linear:#x}: {code[:8].hex(' ')} is no instruction")
    return "\n".join(lines)


def _line(mark: str, code: bytes, instruction: Instruction) -> str:
    address, size, mnemonic, operands = instruction
    return f"{mark} {address:#x}: {code[:size].hex(' '):<30} {mnemonic} {operands}".rstrip()


def _before(engine: Any, code: bytes, linear: int) -> list[str]:
    """The lines of the instructions in `code`, which ends at `linear`.

    Reading x86 code from a wrong byte soon falls into step with the right reading, so the reading
    that most starting points agree on is taken.
    """
    code = code[code.rfind(_NO_CODE) + len(_NO_CODE) :] if _NO_CODE in code else code
    readings: Counter[tuple[Instruction, ...]] = Counter()
    for start in range(len(code)):
        reading = list(engine.disasm_lite(code[start:], linear - len(code) + start))
        if reading and reading[-1][0] + reading[-1][1] == linear:
            readings[tuple(reading[-_SHOWN_BEFORE:])] += 1
    if not readings:
        return []
    best = max(readings, key=lambda reading: (readings[reading], len(reading)))
    return [_line(" ?", code[i[0] - linear + len(code) :], i) for i in best]


def _read_before(vcpu: X86VCPU, ram: GuestRam, linear: int) -> bytes:
    """Up to 48 bytes that end at `linear`, of its page and the one before."""
    start = max(0, linear - _READ_BEFORE)
    whole = _read_linear(vcpu, ram, start, linear - start)
    if len(whole) == linear - start:
        return whole
    page = linear & ~0xFFF
    return _read_linear(vcpu, ram, max(start, page), linear - max(start, page))


def _read_linear(vcpu: X86VCPU, ram: GuestRam, linear: int, length: int) -> bytes:
    found = b""
    while len(found) < length:
        here = linear + len(found)
        try:
            place = vcpu.translate(here)
        except KvmError:
            break
        step = min(length - len(found), 0x1000 - (here & 0xFFF))
        if not place.valid or not (part := ram.read_some(place.physical_address, step)):
            break
        found += part
    return found


def _mode(sregs: Sregs) -> str:
    if sregs.cs.l:
        return "64-bit mode"
    if not sregs.cr0 & _CR0_PE:
        return "real mode"
    return f"{32 if sregs.cs.db else 16}-bit protected mode"
