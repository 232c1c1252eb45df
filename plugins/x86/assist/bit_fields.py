"""BMI1, BMI2, ADX and CRC32: instructions over bit fields of general registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cpufw_x86.assist.cpu_state import CF, OF, RDX, RFLAGS, SF, ZF
from cpufw_x86.assist.table import Assisted, Run

if TYPE_CHECKING:
    from cpufw_x86.assist.cpu_state import CpuState
    from cpufw_x86.assist.decode import Instruction

_CRC32C = 0x82F6_3B78  # the Castagnoli polynomial, lowest bit first: Intel SDM vol. 2A, CRC32


def _mask(size: int) -> int:
    return (1 << 8 * size) - 1


def _set_logic_flags(cpu: CpuState, value: int, size: int, carry: bool) -> None:
    """SF, ZF and CF; OF becomes 0, AF and PF are undefined and stay."""
    sign = value >> 8 * size - 1 & 1
    cpu.set_flags(
        CF | ZF | SF | OF, (CF if carry else 0) | (0 if value else ZF) | (SF if sign else 0)
    )


def _andn(cpu: CpuState, instruction: Instruction) -> None:
    to, first, second = _three(instruction)
    value = ~first.read(cpu) & second.read(cpu) & _mask(to.size)
    to.write(cpu, value)
    _set_logic_flags(cpu, value, to.size, False)


def _bextr(cpu: CpuState, instruction: Instruction) -> None:
    to, source, control = _three(instruction)
    start_and_length = control.read(cpu)
    start, length = start_and_length & 0xFF, start_and_length >> 8 & 0xFF
    value = source.read(cpu) >> start & (1 << length) - 1
    to.write(cpu, value)
    cpu.set_flags(CF | OF | ZF, 0 if value else ZF)


def _bls(function: Callable[[int, int], int], carry_if_zero: bool) -> Run:
    """BLSI, BLSR and BLSMSK: `function` of the source and of the source minus one."""

    def run(cpu: CpuState, instruction: Instruction) -> None:
        to: Any
        source: Any
        to, source = instruction.operands
        before = source.read(cpu)
        value = function(before, before - 1) & _mask(to.size)
        to.write(cpu, value)
        _set_logic_flags(cpu, value, to.size, (before == 0) == carry_if_zero)

    return run


def _bzhi(cpu: CpuState, instruction: Instruction) -> None:
    to, source, index = _three(instruction)
    first, bits = index.read(cpu) & 0xFF, 8 * to.size
    value = source.read(cpu) & (1 << min(first, bits)) - 1
    to.write(cpu, value)
    _set_logic_flags(cpu, value, to.size, first >= bits)


def _mulx(cpu: CpuState, instruction: Instruction) -> None:
    high, low, source = _three(instruction)
    product = (cpu.g[RDX] & _mask(high.size)) * source.read(cpu)
    low.write(cpu, product & _mask(high.size))
    high.write(cpu, product >> 8 * high.size)  # the one that stays if both are the same


def _pdep(cpu: CpuState, instruction: Instruction) -> None:
    to, source, selector = _three(instruction)
    bits, mask, value = source.read(cpu), selector.read(cpu), 0
    while mask:
        lowest = mask & -mask
        value |= lowest if bits & 1 else 0
        bits, mask = bits >> 1, mask ^ lowest
    to.write(cpu, value)


def _pext(cpu: CpuState, instruction: Instruction) -> None:
    to, source, selector = _three(instruction)
    bits, mask, value, place = source.read(cpu), selector.read(cpu), 0, 0
    while mask:
        lowest = mask & -mask
        value |= bool(bits & lowest) << place
        mask, place = mask ^ lowest, place + 1
    to.write(cpu, value)


def _rorx(cpu: CpuState, instruction: Instruction) -> None:
    to, source, count = _three(instruction)
    bits, value = 8 * to.size, source.read(cpu)
    shift = count.read(cpu) & bits - 1
    to.write(cpu, (value >> shift | value << bits - shift) & _mask(to.size))


def _shift(cpu: CpuState, instruction: Instruction) -> None:
    to, source, count = _three(instruction)
    bits, value = 8 * to.size, source.read(cpu)
    shift = count.read(cpu) & bits - 1
    if instruction.name == "shlx":
        value = value << shift & _mask(to.size)
    elif instruction.name == "shrx":
        value >>= shift
    else:  # sarx
        value = (value - (value >> bits - 1 << bits) >> shift) & _mask(to.size)
    to.write(cpu, value)


def _add_with(flag: int) -> Run:
    """ADCX and ADOX: the carry goes through `flag` alone."""

    def run(cpu: CpuState, instruction: Instruction) -> None:
        to: Any
        source: Any
        to, source = instruction.operands
        total = to.read(cpu) + source.read(cpu) + bool(cpu.g[RFLAGS] & flag)
        to.write(cpu, total & _mask(to.size))
        cpu.set_flags(flag, flag if total > _mask(to.size) else 0)

    return run


def _crc32(cpu: CpuState, instruction: Instruction) -> None:
    to: Any
    source: Any
    to, source = instruction.operands
    value = to.read(cpu) & 0xFFFF_FFFF ^ source.read(cpu)
    for _ in range(8 * source.size):
        value = value >> 1 ^ (_CRC32C if value & 1 else 0)
    to.write(cpu, value)


def _three(instruction: Instruction) -> tuple[Any, Any, Any]:
    to, first, second = instruction.operands
    return to, first, second


_BMI1, _BMI2, _ADX, _SSE42 = "7.0.EBX:3", "7.0.EBX:8", "7.0.EBX:19", "1.ECX:20"

TABLE = {
    "andn": Assisted(_andn, (_BMI1,)),
    "bextr": Assisted(_bextr, (_BMI1,)),
    "blsi": Assisted(_bls(lambda value, less: value & ~less, False), (_BMI1,)),
    "blsr": Assisted(_bls(lambda value, less: value & less, True), (_BMI1,)),
    "blsmsk": Assisted(_bls(lambda value, less: value ^ less, True), (_BMI1,)),
    "bzhi": Assisted(_bzhi, (_BMI2,)),
    "mulx": Assisted(_mulx, (_BMI2,)),
    "pdep": Assisted(_pdep, (_BMI2,)),
    "pext": Assisted(_pext, (_BMI2,)),
    "rorx": Assisted(_rorx, (_BMI2,)),
    "sarx": Assisted(_shift, (_BMI2,)),
    "shlx": Assisted(_shift, (_BMI2,)),
    "shrx": Assisted(_shift, (_BMI2,)),
    "adcx": Assisted(_add_with(CF), (_ADX,)),
    "adox": Assisted(_add_with(OF), (_ADX,)),
    "crc32": Assisted(_crc32, (_SSE42,)),
}
