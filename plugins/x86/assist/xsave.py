"""XSAVE and XRSTOR in all their forms, FXSAVE and FXRSTOR, and the control words.

Intel SDM vol. 1, chapter 13, and vol. 2 under each instruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cpufw_x86.assist import table
from cpufw_x86.assist import vector_state as vs
from cpufw_x86.assist.cpu_state import RAX, RDX
from cpufw_x86.assist.faults import Unassisted, general_protection
from cpufw_x86.assist.table import Assisted
from cpufw_x86.xsave import COMPONENTS

if TYPE_CHECKING:
    from cpufw_x86.assist.cpu_state import CpuState
    from cpufw_x86.assist.decode import Instruction
    from cpufw_x86.assist.vector_state import VectorState

_LOW = 0xFFFF_FFFF
_X87_BIT, _SSE_BIT, _AVX_BIT = 1, 2, 4
_COMPACTED = 1 << 63
_ALIGNED = {part.number for part in COMPONENTS if part.aligned}
_MXCSR_WRITABLE = 0xFFFF  # MXCSR_MASK of every processor with DAZ
_IA32_XSS = 0xDA0

_POINTERS = slice(8, 24)  # FIP and FDP, in the 64-bit layout in KVM's area


def _halves(component: int, size: int, bits: int) -> int:
    """How many bytes of a component an instruction touches: outside 64-bit mode half of them."""
    if bits == 64 or component not in (vs.AVX, vs.ZMM_HI256, vs.HI16_ZMM):
        return size
    return 0 if component == vs.HI16_ZMM else size // 2


def _requested(cpu: CpuState) -> int:
    mask: int = cpu.g[RAX] & _LOW | (cpu.g[RDX] & _LOW) << 32
    return cpu.platform.get_xcr0() & mask


def _in_use(vectors: VectorState) -> int:
    # In the compacted format MXCSR is SSE state, so a changed one is in use.
    return vectors.in_use | (vectors.word(vs.MXCSR, 4) != vs.MXCSR_INIT) << 1


def _place(cpu: CpuState, instruction: Instruction, size: int, *, write: bool) -> int:
    operand: Any = instruction.operands[0]
    linear: int = operand.linear(cpu, size, write=write)
    if linear % 64:
        raise general_protection()
    return linear


def _x87_image(area: bytearray, wide: bool) -> bytes:
    """Bytes 0 to 23; without REX.W the pointers have 32 bits, and selectors, which are zero."""
    if wide:
        return bytes(area[:24])
    return bytes(area[:8]) + bytes(area[8:12]) + bytes(4) + bytes(area[16:20]) + bytes(4)


def _from_x87_image(image: bytes, wide: bool) -> bytes:
    if wide:
        return image[:24]
    return image[:8] + image[8:12] + bytes(4) + image[16:20] + bytes(4)


def _xmm_bytes(cpu: CpuState) -> int:
    return 256 if cpu.bits == 64 else 128


def _save(cpu: CpuState, instruction: Instruction) -> None:
    """XSAVE."""
    _save_standard(cpu, instruction, cpu.vectors.in_use, ~0)


def _save_optimized(cpu: CpuState, instruction: Instruction) -> None:
    """XSAVEOPT, which leaves out what is in its initial state."""
    in_use = cpu.vectors.in_use
    _save_standard(cpu, instruction, in_use, in_use)


def _save_standard(cpu: CpuState, instruction: Instruction, in_use: int, written: int) -> None:
    requested = _requested(cpu)
    linear = _place(cpu, instruction, vs.HEADER_END, write=True)
    parts = requested & written
    places = {number: place for number, place in vs.PLACES.items() if parts >> number & 1}
    image = _image_at(cpu, linear, places)
    header = int.from_bytes(image[vs.XSTATE_BV : vs.XCOMP_BV], "little")
    mxcsr = requested & (_SSE_BIT | _AVX_BIT)
    _put_legacy(cpu, image, parts, _is_wide(instruction), mxcsr)
    _put_parts(cpu, image, places)
    header = header & ~requested | in_use & requested
    image[vs.XSTATE_BV : vs.XCOMP_BV] = header.to_bytes(8, "little")
    cpu.write(linear, bytes(image))
    _keep_hidden(cpu, linear, requested)


def _image_at(cpu: CpuState, linear: int, places: Mapping[int, tuple[int, int]]) -> bytearray:
    """What the memory holds now, as far as `places` reach: what is not saved stays."""
    end = max((at + size for at, size in places.values()), default=vs.HEADER_END)
    return bytearray(cpu.read(linear, end))


def _put_parts(cpu: CpuState, image: bytearray, places: Mapping[int, tuple[int, int]]) -> None:
    area = cpu.vectors.area
    for number, (at, size) in places.items():
        offset, length = vs.PLACES[number][0], _halves(number, size, cpu.bits)
        image[at : at + length] = area[offset : offset + length]


def _put_legacy(cpu: CpuState, image: bytearray, parts: int, wide: bool, mxcsr: int) -> None:
    area = cpu.vectors.area
    if parts & _X87_BIT:
        image[:24] = _x87_image(area, wide)
        image[vs.ST : vs.XMM] = area[vs.ST : vs.XMM]
    if mxcsr:
        image[vs.MXCSR : vs.ST] = _mxcsr_and_mask(area)
    if parts & _SSE_BIT:
        end = vs.XMM + _xmm_bytes(cpu)
        image[vs.XMM : end] = area[vs.XMM : end]


def _mxcsr_and_mask(area: bytearray) -> bytes:
    return bytes(area[vs.MXCSR : vs.MXCSR + 4]) + _MXCSR_WRITABLE.to_bytes(4, "little")


def _is_wide(instruction: Instruction) -> bool:
    return instruction.operand_size == 8


@lru_cache(maxsize=64)
def _compacted_places(parts: int) -> dict[int, tuple[int, int]]:
    """Where each of `parts` lies in the compacted format (Intel SDM vol. 1, 13.4.3)."""
    places, at = {}, vs.HEADER_END
    for number, (_, size) in vs.PLACES.items():
        if parts >> number & 1:
            at = (at + 63) & -64 if number in _ALIGNED else at
            places[number] = (at, size)
            at += size
    return places


def _save_compacted(cpu: CpuState, instruction: Instruction) -> None:
    """XSAVEC; XSAVES too, which has nothing more where IA32_XSS is zero."""
    requested = _requested(cpu)
    linear = _place(cpu, instruction, vs.HEADER_END, write=True)
    saved = _in_use(cpu.vectors) & requested
    places = {
        number: place
        for number, place in _compacted_places(requested).items()
        if saved >> number & 1
    }
    image = _image_at(cpu, linear, places)
    _put_legacy(cpu, image, saved, _is_wide(instruction), saved & _SSE_BIT)
    _put_parts(cpu, image, places)
    layout = requested | _COMPACTED
    image[vs.XSTATE_BV : vs.XCOMP_BV + 8] = saved.to_bytes(8, "little") + layout.to_bytes(
        8, "little"
    )
    cpu.write(linear, bytes(image))
    _keep_hidden(cpu, linear, requested)


def _keep_hidden(cpu: CpuState, linear: int, requested: int) -> None:
    xcr0 = cpu.platform.get_xcr0()
    if cpu.hidden is not None and requested == xcr0:
        cpu.hidden.keep(cpu.physical(linear, write=True), cpu.vectors, xcr0)


def _save_supervisor(cpu: CpuState, instruction: Instruction) -> None:
    _need_no_supervisor_state(cpu)
    _save_compacted(cpu, instruction)


def _restore_supervisor(cpu: CpuState, instruction: Instruction) -> None:
    _need_no_supervisor_state(cpu)
    linear = _place(cpu, instruction, vs.HEADER_END, write=False)
    if not int.from_bytes(cpu.read(linear + vs.XCOMP_BV, 8), "little") & _COMPACTED:
        raise general_protection()
    _restore(cpu, instruction)


def _need_no_supervisor_state(cpu: CpuState) -> None:
    if cpu.cpl:
        raise general_protection()
    if cpu.platform.get_msr(_IA32_XSS):
        raise Unassisted("XSAVES or XRSTORS with supervisor state")


def _restore(cpu: CpuState, instruction: Instruction) -> None:
    """XRSTOR."""
    xcr0, requested = cpu.platform.get_xcr0(), _requested(cpu)
    linear = _place(cpu, instruction, vs.HEADER_END, write=False)
    legacy = cpu.read(linear, vs.HEADER_END)
    header = legacy[vs.XSTATE_BV :]
    present = int.from_bytes(header[:8], "little")
    layout = int.from_bytes(header[8:16], "little")
    if layout & _COMPACTED:
        if not cpu.has("D.1.EAX:1") or layout & ~_COMPACTED & ~xcr0 or present & ~layout:
            raise general_protection()
        if any(header[16:]):
            raise general_protection()
        places = _compacted_places(layout)
        load_mxcsr = present & requested & _SSE_BIT
    else:
        if layout or any(header[16:24]) or present & ~xcr0:
            raise general_protection()
        places = vs.PLACES
        load_mxcsr = requested & (_SSE_BIT | _AVX_BIT)
    if load_mxcsr:
        _check_mxcsr(legacy)
    parts = {
        number: cpu.read(linear + at, _halves(number, size, cpu.bits))
        for number, (at, size) in places.items()
        if present & requested & 1 << number
    }
    in_use = cpu.vectors.in_use
    _load_legacy(cpu, legacy, requested, present, _is_wide(instruction))
    if load_mxcsr:
        _set_mxcsr(cpu, legacy)
    elif layout & _COMPACTED and requested & _SSE_BIT:
        cpu.vectors.area[vs.MXCSR : vs.MXCSR + 4] = vs.MXCSR_INIT.to_bytes(4, "little")
    for number, (offset, size) in vs.PLACES.items():
        if requested >> number & 1:
            data = parts.get(number, bytes(_halves(number, size, cpu.bits)))
            cpu.vectors.area[offset : offset + len(data)] = data
    cpu.vectors.set_in_use(in_use & ~requested | present & requested)
    if cpu.hidden is not None and requested == xcr0:
        cpu.hidden.give(cpu.physical(linear, write=False), cpu.vectors, xcr0)


def _load_legacy(cpu: CpuState, image: bytes, requested: int, present: int, wide: bool) -> None:
    area = cpu.vectors.area
    if requested & _X87_BIT:
        if present & _X87_BIT:
            area[:24] = _from_x87_image(image, wide)
            area[vs.ST : vs.XMM] = image[vs.ST : vs.XMM]
        else:
            area[:24] = vs.FCW_INIT.to_bytes(2, "little") + bytes(22)
            area[vs.ST : vs.XMM] = bytes(vs.XMM - vs.ST)
    if requested & _SSE_BIT:
        end = vs.XMM + _xmm_bytes(cpu)
        area[vs.XMM : end] = image[vs.XMM : end] if present & _SSE_BIT else bytes(end - vs.XMM)


def _check_mxcsr(image: bytes) -> None:
    if int.from_bytes(image[vs.MXCSR : vs.MXCSR + 4], "little") & ~_MXCSR_WRITABLE:
        raise general_protection()


def _set_mxcsr(cpu: CpuState, image: bytes) -> None:
    cpu.vectors.area[vs.MXCSR : vs.MXCSR + 4] = image[vs.MXCSR : vs.MXCSR + 4]


_FXSAVE_ALIGNMENT = 16


def _fxsave(cpu: CpuState, instruction: Instruction) -> None:
    operand: Any = instruction.operands[0]
    linear = operand.linear(cpu, vs.LEGACY_SIZE, write=True)
    if linear % _FXSAVE_ALIGNMENT:
        raise general_protection()
    area = cpu.vectors.area
    image = _x87_image(area, _is_wide(instruction)) + _mxcsr_and_mask(area)
    cpu.write(linear, image + bytes(area[vs.ST : vs.XMM + _xmm_bytes(cpu)]))


def _fxrstor(cpu: CpuState, instruction: Instruction) -> None:
    operand: Any = instruction.operands[0]
    linear = operand.linear(cpu, vs.LEGACY_SIZE)
    if linear % _FXSAVE_ALIGNMENT:
        raise general_protection()
    image = cpu.read(linear, vs.LEGACY_SIZE)
    _check_mxcsr(image)
    both = _X87_BIT | _SSE_BIT
    in_use = cpu.vectors.in_use
    _load_legacy(cpu, image, both, both, _is_wide(instruction))
    _set_mxcsr(cpu, image)
    cpu.vectors.set_in_use(in_use | both)


def _ldmxcsr(cpu: CpuState, instruction: Instruction) -> None:
    operand: Any = instruction.operands[0]
    value = operand.load(cpu, 4)
    if int.from_bytes(value, "little") & ~_MXCSR_WRITABLE:
        raise general_protection()
    cpu.vectors.change(vs.SSE)[vs.MXCSR : vs.MXCSR + 4] = value


def _stmxcsr(cpu: CpuState, instruction: Instruction) -> None:
    operand: Any = instruction.operands[0]
    operand.store(cpu, bytes(cpu.vectors.area[vs.MXCSR : vs.MXCSR + 4]))


_XSAVE, _FXSR, _SSE = "1.ECX:26", "1.EDX:24", "1.EDX:25"

TABLE = {
    "ldmxcsr": Assisted(_ldmxcsr, (_SSE,), table.check_sse),
    "stmxcsr": Assisted(_stmxcsr, (_SSE,), table.check_sse),
    "fxsave": Assisted(_fxsave, (_FXSR,), table.check_x87),
    "fxrstor": Assisted(_fxrstor, (_FXSR,), table.check_x87),
    "xsave": Assisted(_save, (_XSAVE,), table.check_xsave),
    "xsaveopt": Assisted(_save_optimized, (_XSAVE, "D.1.EAX:0"), table.check_xsave),
    "xsavec": Assisted(_save_compacted, (_XSAVE, "D.1.EAX:1"), table.check_xsave),
    "xsaves": Assisted(_save_supervisor, (_XSAVE, "D.1.EAX:3"), table.check_xsave),
    "xrstor": Assisted(_restore, (_XSAVE,), table.check_xsave),
    "xrstors": Assisted(_restore_supervisor, (_XSAVE, "D.1.EAX:3"), table.check_xsave),
}
TABLE |= {f"{name}64": TABLE[name] for name in TABLE if name.startswith(("x", "fx"))}
