"""Instructions that nobody should write twice: the unicorn engine runs that one instruction.

Its package is optional (`pip install cpufw[unicorn]`) and imported at the first such instruction.
It knows SSE up to 4.2, x87, MMX and AES, but not AVX. It neither sets the exception flags of
MXCSR nor raises #XM, and knows nothing of faults of the x87 stack.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cpufw_x86.assist import table
from cpufw_x86.assist import vector_state as vs
from cpufw_x86.assist.cpu_state import ARITHMETIC_FLAGS, PAGE, RFLAGS, RIP
from cpufw_x86.assist.faults import Fault, Unassisted, general_protection
from cpufw_x86.assist.operands import Memory, OtherRegister
from cpufw_x86.assist.table import Assisted

if TYPE_CHECKING:
    from cpufw_x86.assist.cpu_state import CpuState
    from cpufw_x86.assist.decode import Instruction

_POOL, _POOL_PAGES = 0x10000, 16  # an instruction touches four pages at most; FXSAVE's kin too
_READ_WRITE_EXECUTE = 7
_EXCEPTION_MASKS = 0x1F80  # of MXCSR
_HAS_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})
_NAMES = ("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RSP", "RBP", *(f"R{n}" for n in range(8, 16)))
_UNALIGNED = frozenset({"lddqu", "movups", "movupd", "movdqu"})  # and the string comparisons

# What capstone calls the groups, with the CPUID feature and the check of each.
_FAMILIES: dict[str, tuple[str, table.Check]] = {
    "sse1": ("1.EDX:25", table.check_sse),
    "sse2": ("1.EDX:26", table.check_sse),
    "sse3": ("1.ECX:0", table.check_sse),
    "ssse3": ("1.ECX:9", table.check_sse),
    "sse41": ("1.ECX:19", table.check_sse),
    "sse42": ("1.ECX:20", table.check_sse),
    "aes": ("1.ECX:25", table.check_sse),
    "pclmul": ("1.ECX:1", table.check_sse),
    "mmx": ("1.EDX:23", table.check_x87),
    "fpu": ("1.EDX:0", table.check_x87),
}
# What capstone 5 counts among none.
_GROUPLESS = {
    **dict.fromkeys(("cvtsi2ss", "cvtss2si", "cvttss2si"), "sse1"),
    **dict.fromkeys(("cvtsi2sd", "cvtsd2si", "cvttsd2si"), "sse2"),
    "phminposuw": "sse41",
}
_NOT_KNOWN = frozenset({"avx", "avx2", "avx512", "fma", "fma4", "xop", "vlx"})


def assisted_by_unicorn(instruction: Instruction) -> Assisted | None:
    """How unicorn finishes `instruction`; None if it cannot."""
    if _NOT_KNOWN.intersection(instruction.groups) or instruction.name.startswith("v"):
        return None
    groups = instruction.groups or (_GROUPLESS.get(instruction.name, ""),)
    known = [_FAMILIES[group] for group in groups if group in _FAMILIES]
    if not known:
        return None
    return Assisted(_run, tuple(need for need, _ in known), known[0][1])


def _run(cpu: CpuState, instruction: Instruction) -> None:
    if cpu.vectors.word(vs.MXCSR, 4) & _EXCEPTION_MASKS != _EXCEPTION_MASKS:
        raise Unassisted(f"{instruction.name} with SIMD exceptions that are not masked")
    _check_alignment(cpu, instruction)
    if cpu.bits != 64:
        flat = all(getattr(cpu.sregs, name).base == 0 for name in ("cs", "ds", "es", "ss"))
        if cpu.bits != 32 or not flat:
            raise Unassisted(f"{instruction.name} in a segment that does not begin at 0")
    with _lock:
        _engine(cpu.bits).run(cpu, instruction)


def _check_alignment(cpu: CpuState, instruction: Instruction) -> None:
    if instruction.name in _UNALIGNED or instruction.name.startswith("pcmp"):
        return
    if not any(group.startswith(("sse", "ssse", "aes", "pcl")) for group in instruction.groups):
        return
    for operand in instruction.operands:
        if isinstance(operand, Memory) and operand.size == 16 and operand.linear(cpu, 16) % 16:
            raise general_protection()


def _mmx_register(instruction: Instruction) -> int | None:
    """The number of the MMX register that is written, None if none is."""
    to = instruction.operands[0] if instruction.operands else None
    if isinstance(to, OtherRegister) and to.name.startswith("mm"):
        return int(to.name[2:])
    return None


_lock = threading.Lock()
_engines: dict[int, _Engine] = {}


def _engine(bits: int) -> _Engine:
    if bits not in _engines:
        _engines[bits] = _Engine(bits)
    return _engines[bits]


class _Engine:
    """One unicorn CPU, given a guest's state for each instruction; not for two threads at once."""

    def __init__(self, bits: int) -> None:
        try:
            unicorn = import_module("unicorn")
            x86_const = import_module("unicorn.x86_const")
        except ImportError:
            raise Unassisted(
                "this instruction needs the unicorn engine, which is not installed: "
                "pip install 'cpufw[unicorn]'"
            ) from None
        mode = unicorn.UC_MODE_64 if bits == 64 else unicorn.UC_MODE_32
        self._unicorn, self._names = unicorn, x86_const
        self._uc = unicorn.Uc(unicorn.UC_ARCH_X86, mode)
        self._uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_SKYLAKE_SERVER)  # has all that it knows
        self._uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)  # else it drops upper address bits
        self._uc.mem_map(_POOL, _POOL_PAGES * PAGE)
        self._uc.hook_add(unicorn.UC_HOOK_TLB_FILL, self._on_page)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, self._on_write)
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)
        self._general = [getattr(x86_const, f"UC_X86_REG_{name}") for name in _NAMES]
        self._xmm = [x86_const.UC_X86_REG_XMM0 + i for i in range(16 if bits == 64 else 8)]
        self._fp = [x86_const.UC_X86_REG_FP0 + i for i in range(8)]
        if bits == 32:
            self._general = [getattr(x86_const, f"UC_X86_REG_E{name[1:]}") for name in _NAMES[:8]]

    def run(self, cpu: CpuState, instruction: Instruction) -> None:
        """Run it and take its results over into `cpu`, but for rip."""
        self._cpu = cpu
        self._failure: Fault | Unassisted | None = None
        self._pages: dict[int, int] = {}
        self._writes: list[tuple[int, bytes]] = []
        rip = cpu.g[RIP]
        self._code = (rip, instruction.code)
        self._load(cpu)
        # Nothing is kept from one instruction to the next.
        self._uc.ctl(self._unicorn.UC_CTL_TLB_FLUSH, self._unicorn.UC_CTL_IO_WRITE)
        self._uc.ctl_flush_tb()
        try:
            self._uc.emu_start(rip, rip + instruction.length, count=1)
        except self._unicorn.UcError as error:
            self._failure = self._failure or Unassisted(f"unicorn: {error}")
        if self._failure is not None:
            raise self._failure
        for address, data in self._writes:
            cpu.check_writable(address, len(data))
        for address, data in self._writes:
            cpu.write(address, data)
        self._store(cpu, instruction)

    # State in and out

    def _load(self, cpu: CpuState) -> None:
        uc, x86 = self._uc, self._names
        for index, register in enumerate(self._general):
            uc.reg_write(register, cpu.g[index])
        if cpu.bits == 64:
            uc.reg_write(x86.UC_X86_REG_FS_BASE, cpu.sregs.fs.base)
            uc.reg_write(x86.UC_X86_REG_GS_BASE, cpu.sregs.gs.base)
        uc.reg_write(x86.UC_X86_REG_EFLAGS, cpu.g[RFLAGS] & ARITHMETIC_FLAGS | 2)
        for index, register in enumerate(self._xmm):
            uc.reg_write(register, cpu.vectors.read(index, 16))
        uc.reg_write(x86.UC_X86_REG_MXCSR, cpu.vectors.word(vs.MXCSR, 4))
        status, tags = cpu.vectors.word(vs.FSW, 2), cpu.vectors.word(vs.FTW, 1)
        uc.reg_write(x86.UC_X86_REG_FPSW, status)
        uc.reg_write(x86.UC_X86_REG_FPCW, cpu.vectors.word(vs.FCW, 2))
        empty = 3  # of two bits a register; the other values are worked out from the contents
        uc.reg_write(
            x86.UC_X86_REG_FPTAG, sum(0 if tags >> i & 1 else empty << 2 * i for i in range(8))
        )
        top = status >> 11 & 7
        for index, register in enumerate(self._fp):
            at = vs.ST + 16 * ((index - top) & 7)
            uc.reg_write(register, (cpu.vectors.word(at, 8), cpu.vectors.word(at + 8, 2)))

    def _store(self, cpu: CpuState, instruction: Instruction) -> None:
        uc, x86 = self._uc, self._names
        for index, register in enumerate(self._general):
            cpu.g[index] = uc.reg_read(register)
        cpu.set_flags(ARITHMETIC_FLAGS, uc.reg_read(x86.UC_X86_REG_EFLAGS) & ARITHMETIC_FLAGS)
        for index, register in enumerate(self._xmm):
            value = uc.reg_read(register)
            if value != cpu.vectors.read(index, 16):
                cpu.vectors.write(index, 16, value, clear_above=False)
        mxcsr = uc.reg_read(x86.UC_X86_REG_MXCSR)
        if mxcsr != cpu.vectors.word(vs.MXCSR, 4):
            cpu.vectors.change(vs.SSE)[vs.MXCSR : vs.MXCSR + 4] = mxcsr.to_bytes(4, "little")
        self._store_x87(cpu, instruction)

    def _store_x87(self, cpu: CpuState, instruction: Instruction) -> None:
        uc, x86, old = self._uc, self._names, cpu.vectors.area
        status = uc.reg_read(x86.UC_X86_REG_FPSW)
        tags = uc.reg_read(x86.UC_X86_REG_FPTAG)
        image = uc.reg_read(x86.UC_X86_REG_FPCW).to_bytes(2, "little")
        image += status.to_bytes(2, "little")
        image += bytes([sum((tags >> 2 * i & 3 != 3) << i for i in range(8))])
        image += bytes(old[5:24])
        top = status >> 11 & 7
        stack = bytearray()
        written = _mmx_register(instruction)
        for place in range(8):
            register = (place + top) & 7
            mantissa, exponent = uc.reg_read(self._fp[register])
            if register == written:
                exponent = 0xFFFF  # Intel SDM vol. 1, 9.2.2; unicorn leaves it
            stack += mantissa.to_bytes(8, "little") + exponent.to_bytes(2, "little") + bytes(6)
        if image != bytes(old[:24]) or stack != old[vs.ST : vs.XMM]:
            area = cpu.vectors.change(vs.X87)
            area[:24], area[vs.ST : vs.XMM] = image, stack

    # What unicorn asks while it runs

    def _on_page(self, uc: Any, address: int, access: int, entry: Any, data: Any) -> bool:  # noqa: ARG002
        page = address & -PAGE
        place = self._pages.get(page)
        if place is None:
            if len(self._pages) == _POOL_PAGES:
                self._failure = Unassisted("an instruction that touches too many pages")
                return False
            place = _POOL + len(self._pages) * PAGE
            try:
                content = bytearray(self._content(page))
            except (Fault, Unassisted) as failure:
                self._failure = failure
                return False
            self._pages[page] = place
            uc.mem_write(place, bytes(content))
        entry.paddr, entry.perms = place, _READ_WRITE_EXECUTE
        return True

    def _content(self, page: int) -> bytes:
        """What the guest has there, with the instruction in its place: it was fetched already."""
        start, code = self._code
        first = max(start, page)
        inside = code[first - start : page + PAGE - start] if first < start + len(code) else b""
        if not inside or first >= page + PAGE:
            return self._cpu.read(page, PAGE)
        try:
            content = bytearray(self._cpu.read(page, PAGE))
        except (Fault, Unassisted):
            content = bytearray(PAGE)  # code that data accesses cannot read
        content[first - page : first - page + len(inside)] = inside
        return bytes(content)

    def _on_write(self, *event: Any) -> None:
        _, _, place, size, value, _ = event
        page = list(self._pages)[place - _POOL >> 12]  # told is where it is in the pool
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self._writes.append((page + place % PAGE, data))

    def _on_exception(self, uc: Any, vector: int, data: Any) -> None:  # noqa: ARG002
        self._failure = Fault(vector, 0 if vector in _HAS_ERROR_CODE else None)
        uc.emu_stop()
