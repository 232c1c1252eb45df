"""SSE and AVX moves. Names are those of SSE; each AVX form has a `v` before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cpufw_x86.assist import table
from cpufw_x86.assist.cpu_state import RDI
from cpufw_x86.assist.faults import Unassisted, general_protection
from cpufw_x86.assist.operands import Memory, Register, Vector
from cpufw_x86.assist.table import Assisted

if TYPE_CHECKING:
    from cpufw_x86.assist.cpu_state import CpuState
    from cpufw_x86.assist.decode import Instruction

_LOW_64 = 0xFFFF_FFFF_FFFF_FFFF


def is_vex(instruction: Instruction) -> bool:
    """Whether it is the AVX form, which clears the register above what it writes."""
    return instruction.name.startswith("v")


def put(cpu: CpuState, instruction: Instruction, to: Vector, value: int, size: int = 0) -> None:
    """Write the lowest `size` bytes (by default all) of a vector register."""
    cpu.vectors.write(to.index, size or to.size, value, clear_above=is_vex(instruction))


def load_vector(cpu: CpuState, operand: Any, size: int, *, aligned: bool) -> int:
    """A vector register or memory operand; raises #GP for memory that had to be aligned."""
    if isinstance(operand, Vector):
        return cpu.vectors.read(operand.index, size)
    if not isinstance(operand, Memory):
        raise Unassisted("an operand that is no vector")  # MMX
    linear = operand.linear(cpu, size)
    if aligned and linear % size:
        raise general_protection()
    return int.from_bytes(cpu.read(linear, size), "little")


def _whole(cpu: CpuState, instruction: Instruction, *, aligned: bool) -> None:
    to: Any
    source: Any
    to, source = instruction.operands
    vector = to if isinstance(to, Vector) else source
    size = vector.size
    value = load_vector(cpu, source, size, aligned=aligned)
    if isinstance(to, Vector):
        put(cpu, instruction, to, value)
        return
    linear = to.linear(cpu, size, write=True)
    if aligned and linear % size:
        raise general_protection()
    cpu.write(linear, value.to_bytes(size, "little"))


def _unaligned(cpu: CpuState, instruction: Instruction) -> None:
    _whole(cpu, instruction, aligned=False)


def _aligned(cpu: CpuState, instruction: Instruction) -> None:
    _whole(cpu, instruction, aligned=True)


def _part(cpu: CpuState, instruction: Instruction, size: int) -> None:
    """MOVD, MOVQ: the lowest `size` bytes, the rest of a vector register becomes zero."""
    to: Any
    source: Any
    to, source = instruction.operands
    if isinstance(source, Vector):
        value = cpu.vectors.read(source.index, 16) & (1 << 8 * size) - 1
    elif isinstance(source, Memory):
        value = int.from_bytes(source.load(cpu, size), "little")
    elif isinstance(source, Register):
        value = source.read(cpu)
    else:
        raise Unassisted("an MMX register")
    if isinstance(to, Vector):
        put(cpu, instruction, to, value, 16)
    elif isinstance(to, Memory):
        to.store(cpu, value.to_bytes(size, "little"))
    elif isinstance(to, Register):
        to.write(cpu, value)
    else:
        raise Unassisted("an MMX register")


def _movd(cpu: CpuState, instruction: Instruction) -> None:
    _part(cpu, instruction, 4)


def _movq(cpu: CpuState, instruction: Instruction) -> None:
    _part(cpu, instruction, 8)


def _scalar(cpu: CpuState, instruction: Instruction, size: int) -> None:
    """MOVSS, MOVSD: from memory the rest becomes zero, between registers it stays."""
    *_, source = instruction.operands
    if len(instruction.operands) == 2 and (
        isinstance(source, Memory) or isinstance(instruction.operands[0], Memory)
    ):
        _part(cpu, instruction, size)
        return
    to: Any = instruction.operands[0]
    rest: Any = instruction.operands[-2]  # the register itself in the SSE form
    low: Any = source
    mask = (1 << 8 * size) - 1
    value = cpu.vectors.read(rest.index, 16) & ~mask | cpu.vectors.read(low.index, 16) & mask
    put(cpu, instruction, to, value, 16)


def _movss(cpu: CpuState, instruction: Instruction) -> None:
    _scalar(cpu, instruction, 4)


def _movsd(cpu: CpuState, instruction: Instruction) -> None:
    if not instruction.operands or not any(
        isinstance(operand, Vector) for operand in instruction.operands
    ):
        raise Unassisted("the string instruction MOVSD")
    _scalar(cpu, instruction, 8)


def _half(cpu: CpuState, instruction: Instruction, *, high: bool) -> None:
    """MOVLPS, MOVHPS: one half of a register, and memory."""
    to: Any = instruction.operands[0]
    source: Any = instruction.operands[-1]
    shift = 64 if high else 0
    if isinstance(to, Memory):
        value = cpu.vectors.read(source.index, 16) >> shift & _LOW_64
        to.store(cpu, value.to_bytes(8, "little"))
        return
    rest: Any = instruction.operands[-2]
    value = int.from_bytes(source.load(cpu, 8), "little") << shift
    put(
        cpu,
        instruction,
        to,
        cpu.vectors.read(rest.index, 16) & ~(_LOW_64 << shift) | value,
        16,
    )


def _low_half(cpu: CpuState, instruction: Instruction) -> None:
    _half(cpu, instruction, high=False)


def _high_half(cpu: CpuState, instruction: Instruction) -> None:
    _half(cpu, instruction, high=True)


def _movlhps(cpu: CpuState, instruction: Instruction) -> None:
    to, first, second = _three(instruction)
    low = cpu.vectors.read(first.index, 16) & _LOW_64
    put(cpu, instruction, to, low | (cpu.vectors.read(second.index, 16) & _LOW_64) << 64, 16)


def _movhlps(cpu: CpuState, instruction: Instruction) -> None:
    to, first, second = _three(instruction)
    high = cpu.vectors.read(first.index, 16) >> 64 << 64
    put(cpu, instruction, to, high | cpu.vectors.read(second.index, 16) >> 64, 16)


def _three(instruction: Instruction) -> tuple[Any, Any, Any]:
    operands: Any = instruction.operands
    return (operands[0], operands[0], operands[1]) if len(operands) == 2 else operands


def _broadcast(cpu: CpuState, instruction: Instruction, size: int) -> None:
    to: Any
    source: Any
    to, source = instruction.operands
    if isinstance(source, Vector):
        value = cpu.vectors.read(source.index, 16) & (1 << 8 * size) - 1
    else:
        value = int.from_bytes(source.load(cpu, size), "little")
    copies = to.size // size
    put(cpu, instruction, to, sum(value << 8 * size * i for i in range(copies)))


def _broadcast_of(size: int) -> table.Run:
    return lambda cpu, instruction: _broadcast(cpu, instruction, size)


def _extract_half(cpu: CpuState, instruction: Instruction) -> None:
    to: Any
    source: Any
    which: Any
    to, source, which = instruction.operands
    value = cpu.vectors.read(source.index, 32) >> 128 * (which.read(cpu) & 1) & (1 << 128) - 1
    if isinstance(to, Vector):
        put(cpu, instruction, to, value, 16)
    else:
        to.store(cpu, value.to_bytes(16, "little"))


def _insert_half(cpu: CpuState, instruction: Instruction) -> None:
    to: Any
    first: Any
    which: Any
    to, first, second, which = instruction.operands
    value = load_vector(cpu, second, 16, aligned=False)
    shift = 128 * (which.read(cpu) & 1)
    rest = cpu.vectors.read(first.index, 32) & ~((1 << 128) - 1 << shift)
    put(cpu, instruction, to, rest | value << shift)


def _vzeroupper(cpu: CpuState, instruction: Instruction) -> None:
    for index in range(16 if cpu.bits == 64 else 8):
        put(cpu, instruction, Vector(index, 16), cpu.vectors.read(index, 16))


def _vzeroall(cpu: CpuState, instruction: Instruction) -> None:
    for index in range(16 if cpu.bits == 64 else 8):
        put(cpu, instruction, Vector(index, 16), 0)


def _maskmovdqu(cpu: CpuState, instruction: Instruction) -> None:
    source: Any
    mask: Any
    *_, source, mask = instruction.operands
    if not isinstance(source, Vector):
        raise Unassisted("an MMX register")
    data = cpu.vectors.read(source.index, 16).to_bytes(16, "little")
    choice = cpu.vectors.read(mask.index, 16).to_bytes(16, "little")
    place = Memory("ds", Register(RDI, 0, cpu.bits // 8), None, 1, 0, False, cpu.bits // 8, 16, 0)
    for at in range(16):
        if choice[at] & 0x80:
            offset = place.offset(cpu) + at
            cpu.write(cpu.linear("ds", offset, 1, True), data[at : at + 1])


_SSE, _SSE2, _SSE3, _SSE41 = "1.EDX:25", "1.EDX:26", "1.ECX:0", "1.ECX:19"
_AVX, _AVX2 = "1.ECX:28", "7.0.EBX:5"

_BOTH: dict[str, tuple[table.Run, str]] = {
    "movups": (_unaligned, _SSE),
    "movupd": (_unaligned, _SSE2),
    "movdqu": (_unaligned, _SSE2),
    "lddqu": (_unaligned, _SSE3),
    "movaps": (_aligned, _SSE),
    "movapd": (_aligned, _SSE2),
    "movdqa": (_aligned, _SSE2),
    "movntps": (_aligned, _SSE),
    "movntpd": (_aligned, _SSE2),
    "movntdq": (_aligned, _SSE2),
    "movntdqa": (_aligned, _SSE41),
    "movd": (_movd, _SSE2),
    "movq": (_movq, _SSE2),
    "movss": (_movss, _SSE),
    "movsd": (_movsd, _SSE2),
    "movlps": (_low_half, _SSE),
    "movlpd": (_low_half, _SSE2),
    "movhps": (_high_half, _SSE),
    "movhpd": (_high_half, _SSE2),
    "movlhps": (_movlhps, _SSE),
    "movhlps": (_movhlps, _SSE),
    "maskmovdqu": (_maskmovdqu, _SSE2),
}
_ONLY_AVX: dict[str, tuple[table.Run, str]] = {
    "vbroadcastss": (_broadcast_of(4), _AVX),
    "vbroadcastsd": (_broadcast_of(8), _AVX),
    "vbroadcastf128": (_broadcast_of(16), _AVX),
    "vbroadcasti128": (_broadcast_of(16), _AVX2),
    "vpbroadcastb": (_broadcast_of(1), _AVX2),
    "vpbroadcastw": (_broadcast_of(2), _AVX2),
    "vpbroadcastd": (_broadcast_of(4), _AVX2),
    "vpbroadcastq": (_broadcast_of(8), _AVX2),
    "vextractf128": (_extract_half, _AVX),
    "vextracti128": (_extract_half, _AVX2),
    "vinsertf128": (_insert_half, _AVX),
    "vinserti128": (_insert_half, _AVX2),
    "vzeroupper": (_vzeroupper, _AVX),
    "vzeroall": (_vzeroall, _AVX),
}

TABLE = {
    **{name: Assisted(run, (need,), table.check_sse) for name, (run, need) in _BOTH.items()},
    **{f"v{name}": Assisted(run, (_AVX,), table.check_avx) for name, (run, _) in _BOTH.items()},
    **{name: Assisted(run, (need,), table.check_avx) for name, (run, need) in _ONLY_AVX.items()},
}
