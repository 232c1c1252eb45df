"""SSE and AVX instructions over whole registers: logic, integer arithmetic, shuffles, tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cpufw_x86.assist import table
from cpufw_x86.assist import vector_lanes as lanes
from cpufw_x86.assist.cpu_state import ARITHMETIC_FLAGS, CF, ZF
from cpufw_x86.assist.faults import Unassisted
from cpufw_x86.assist.operands import Immediate, Memory, Vector
from cpufw_x86.assist.table import Assisted
from cpufw_x86.assist.vector_moves import is_vex, load_vector, put

if TYPE_CHECKING:
    from cpufw_x86.assist.cpu_state import CpuState
    from cpufw_x86.assist.decode import Instruction


def _sources(instruction: Instruction) -> tuple[Any, Any, Any]:
    """Destination, first and second source; the SSE form's destination is the first source."""
    operands: Any = instruction.operands
    if not isinstance(operands[0], Vector):
        raise Unassisted("an MMX register")
    return (operands[0], operands[0], operands[1]) if len(operands) == 2 else operands[:3]


def _binary(function: lanes.Binary) -> table.Run:
    def run(cpu: CpuState, instruction: Instruction) -> None:
        to, first, second = _sources(instruction)
        size = to.size
        aligned = not is_vex(instruction)
        b = load_vector(cpu, second, size, aligned=aligned)
        put(cpu, instruction, to, function(cpu.vectors.read(first.index, size), b, size))

    return run


def _absolute(width: int) -> table.Run:
    def run(cpu: CpuState, instruction: Instruction) -> None:
        to: Any
        to, source = instruction.operands
        if not isinstance(to, Vector):
            raise Unassisted("an MMX register")
        value = load_vector(cpu, source, to.size, aligned=not is_vex(instruction))
        elements = [abs(lanes.signed(e, width)) for e in lanes.split(value, width, to.size)]
        put(cpu, instruction, to, lanes.join(elements, width))

    return run


def _shift(function: lanes.Binary) -> table.Run:
    def run(cpu: CpuState, instruction: Instruction) -> None:
        to, first, count = _sources(instruction)
        if isinstance(count, Immediate):
            number = count.value & 0xFF
        else:  # 16 bytes also of the 256-bit form
            number = load_vector(cpu, count, 16, aligned=not is_vex(instruction))
        value = cpu.vectors.read(first.index, to.size)
        put(cpu, instruction, to, function(value, number, to.size))

    return run


def _shuffle(function: lanes.Shuffle) -> table.Run:
    def run(cpu: CpuState, instruction: Instruction) -> None:
        to, source, immediate = _with_immediate(instruction)
        value = load_vector(cpu, source, to.size, aligned=not is_vex(instruction))
        put(cpu, instruction, to, function(value, immediate, to.size))

    return run


def _with_immediate(instruction: Instruction) -> tuple[Any, Any, int]:
    operands: Any = instruction.operands
    if not isinstance(operands[0], Vector):
        raise Unassisted("an MMX register")
    return operands[0], operands[-2], operands[-1].value & 0xFF


def _blend(function: Any) -> table.Run:
    def run(cpu: CpuState, instruction: Instruction) -> None:
        to, second, immediate = _with_immediate(instruction)
        first: Any = instruction.operands[-3]
        b = load_vector(cpu, second, to.size, aligned=not is_vex(instruction))
        a = cpu.vectors.read(first.index, to.size)
        put(cpu, instruction, to, function(a, b, immediate, to.size))

    return run


def _ptest(cpu: CpuState, instruction: Instruction) -> None:
    first: Any
    first, second = instruction.operands
    a = cpu.vectors.read(first.index, first.size)
    b = load_vector(cpu, second, first.size, aligned=not is_vex(instruction))
    flags = (0 if a & b else ZF) | (0 if ~a & b else CF)
    cpu.set_flags(ARITHMETIC_FLAGS, flags)


def _sign_bits(width: int) -> table.Run:
    def run(cpu: CpuState, instruction: Instruction) -> None:
        to: Any
        source: Any
        to, source = instruction.operands
        if not isinstance(source, Vector):
            raise Unassisted("an MMX register")
        elements = lanes.split(cpu.vectors.read(source.index, source.size), width, source.size)
        top = 8 * width - 1
        to.write(cpu, sum((element >> top) << i for i, element in enumerate(elements)))

    return run


def _extract(width: int) -> table.Run:
    def run(cpu: CpuState, instruction: Instruction) -> None:
        to: Any
        to, source, immediate = _destination_and_source(instruction)
        at = (immediate & 16 // width - 1) * width
        value = cpu.vectors.read(source.index, 16) >> 8 * at & (1 << 8 * width) - 1
        if isinstance(to, Memory):
            to.store(cpu, value.to_bytes(width, "little"))
        else:
            to.write(cpu, value)

    return run


def _destination_and_source(instruction: Instruction) -> tuple[Any, Any, int]:
    operands: Any = instruction.operands
    if not isinstance(operands[1], Vector):
        raise Unassisted("an MMX register")
    return operands[0], operands[1], operands[2].value & 0xFF


def _insert(width: int) -> table.Run:
    def run(cpu: CpuState, instruction: Instruction) -> None:
        to, source, immediate = _with_immediate(instruction)
        first: Any = instruction.operands[-3]
        if isinstance(source, Memory):
            value = int.from_bytes(source.load(cpu, width), "little")
        else:
            value = source.read(cpu) & (1 << 8 * width) - 1
        shift = (immediate & 16 // width - 1) * 8 * width
        rest = cpu.vectors.read(first.index, 16) & ~((1 << 8 * width) - 1 << shift)
        put(cpu, instruction, to, rest | value << shift, 16)

    return run


_SSE, _SSE2, _SSSE3, _SSE41, _SSE42 = "1.EDX:25", "1.EDX:26", "1.ECX:9", "1.ECX:19", "1.ECX:20"
_AVX, _AVX2 = "1.ECX:28", "7.0.EBX:5"
_NEW_IN_SSE41 = (
    "pcmpeqq", "pmulld", "packusdw", "ptest", "pextrb", "pextrd", "pextrq", "pinsrb", "pinsrd",
    "pinsrq", "pminsb", "pmaxsb", "pminuw", "pmaxuw", "pminsd", "pmaxsd", "pminud", "pmaxud",
)  # fmt: skip
_NEWER = {
    **dict.fromkeys(("pshufb", "palignr", "pabsb", "pabsw", "pabsd"), _SSSE3),
    **dict.fromkeys(
        _NEW_IN_SSE41,
        _SSE41,
    ),
    "pcmpgtq": _SSE42,
}
_FLOAT = frozenset(
    [f"{name}ps" for name in ("and", "or", "xor", "andn", "unpckl", "unpckh", "shuf", "movmsk")]
)

_RUNS: dict[str, table.Run] = {
    **{
        name: (_shift if name.startswith(("psll", "psrl", "psra")) else _binary)(function)
        for name, function in lanes.BINARIES.items()
    },
    **{name: _shuffle(function) for name, function in lanes.SHUFFLES.items()},
    **{name: _blend(function) for name, function in lanes.BLENDS.items()},
    **{f"pabs{letter}": _absolute(1 << i) for i, letter in enumerate("bwd")},
    "ptest": _ptest,
    "pmovmskb": _sign_bits(1),
    "movmskps": _sign_bits(4),
    "movmskpd": _sign_bits(8),
    **{f"pextr{letter}": _extract(1 << i) for i, letter in enumerate("bwdq")},
    **{f"pinsr{letter}": _insert(1 << i) for i, letter in enumerate("bwdq")},
}


def _wide(run: table.Run, name: str) -> table.Run:
    """The AVX form: its integer instructions over 256 bits are AVX2's."""
    if not name.startswith("p") or name == "ptest":
        return run

    def checked(cpu: CpuState, instruction: Instruction) -> None:
        if any(isinstance(o, Vector) and o.size == 32 for o in instruction.operands):
            table.need(cpu, _AVX2)
        run(cpu, instruction)

    return checked


TABLE = {
    **{
        name: Assisted(run, (_NEWER.get(name, _SSE if name in _FLOAT else _SSE2),), table.check_sse)
        for name, run in _RUNS.items()
    },
    **{
        f"v{name}": Assisted(_wide(run, name), (_AVX,), table.check_avx)
        for name, run in _RUNS.items()
    },
    "vpermq": Assisted(_shuffle(lanes.vpermq), (_AVX2,), table.check_avx),
    "vpermpd": Assisted(_shuffle(lanes.vpermq), (_AVX2,), table.check_avx),
    "vperm2f128": Assisted(_blend(lanes.vperm2), (_AVX,), table.check_avx),
    "vperm2i128": Assisted(_blend(lanes.vperm2), (_AVX2,), table.check_avx),
}
