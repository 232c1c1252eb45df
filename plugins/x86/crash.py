"""What a user is told when a guest dies: the reason, the registers, the code around rip."""

from __future__ import annotations

from cpufw.errors import KvmError
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
_SHOWN_AFTER = 6


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


def code_text(vcpu: X86VCPU, ram: GuestRam, failed: bytes = b"") -> str:
    """The instructions from rip on, disassembled; `failed` stands in for unreadable memory."""
    regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    linear = regs.rip if sregs.cs.l else sregs.cs.base + regs.rip
    code = _read_linear(vcpu, ram, linear, _LONGEST_INSTRUCTION * _SHOWN_AFTER) or failed
    if not code:
        return f"  {linear:#x}: this address is not readable"
    import capstone  # needed only when a guest has died

    bits = capstone.CS_MODE_64 if sregs.cs.l else capstone.CS_MODE_32
    if not sregs.cs.l and not sregs.cs.db:
        bits = capstone.CS_MODE_16
    engine = capstone.Cs(capstone.CS_ARCH_X86, bits)
    lines = []
    for address, size, mnemonic, operands in engine.disasm_lite(code, linear, _SHOWN_AFTER):
        raw = code[address - linear : address - linear + size].hex(" ")
        mark = "->" if address == linear else "  "
        lines.append(f"{mark} {address:#x}: {raw:<30} {mnemonic} {operands}".rstrip())
    return "\n".join(lines) or f"-> {linear:#x}: {code[:8].hex(' ')} is no instruction"


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
