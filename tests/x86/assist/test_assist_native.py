"""Assisted instructions against this machine's CPU, over random operands."""

from __future__ import annotations

import random

import pytest
from guest_state import GuestState
from native_cpu import (
    LOADED_FLAGS,
    SCRATCH_AT,
    SCRATCH_SIZE,
    assemble,
    host_flags,
    native_cpu,
    random_registers,
)

ROUNDS = 6
XSAVE_BYTES = 2696  # up to Hi16_ZMM in the standard format
CF, ZF, OF, SF, AF, PF = 0x1, 0x40, 0x800, 0x80, 0x10, 0x4

# Instruction text by the /proc/cpuinfo flag that it needs; the flags that are undefined after it.
INTEGER = {
    "popcnt": ["popcnt rax, rcx", "popcnt r9d, ebx", "popcnt dx, r8w", "popcnt rax, [rsi]",
               "popcnt ecx, dword ptr [rsi+7]", "popcnt bx, word ptr [rsi+1]"],
    "bmi1": ["tzcnt rax, rcx", "tzcnt r9d, ebx", "tzcnt dx, r8w", "tzcnt rax, [rsi]",
             "tzcnt ecx, dword ptr [rsi+3]", "andn rax, rcx, rdx", "andn r8d, ecx, [rsi]",
             "blsr eax, ecx", "blsi rax, [rsi]", "blsmsk r9, rdx", "blsmsk eax, ecx",
             "bextr rax, rcx, rdx", "bextr eax, [rsi], ecx"],
    "bmi2": ["pdep rax, rcx, rdx", "pext eax, ecx, edx", "rorx eax, ecx, 7", "rorx rax, rcx, 0",
             "bzhi rax, rcx, rdx", "bzhi eax, [rsi], ecx", "mulx rax, rbx, rcx",
             "mulx ecx, ecx, eax", "shlx rax, [rsi+1], rcx", "shrx eax, edx, ecx",
             "sarx rax, rcx, rbx", "sarx eax, ecx, ebx"],
    "adx": ["adcx rax, rcx", "adox eax, edx", "adox r9, [rsi]"],
    "sse4_2": ["crc32 eax, cl", "crc32 eax, dx", "crc32 rax, rcx", "crc32 eax, dword ptr [rsi]"],
    "abm": ["lzcnt rax, rcx", "lzcnt r9d, ebx", "lzcnt dx, r8w", "lzcnt rax, [rsi]",
            "lzcnt ecx, dword ptr [rsi+3]"],
    "movbe": ["movbe rax, [rsi]", "movbe ecx, [rsi+5]", "movbe bx, [rsi+1]", "movbe [rsi], r15",
              "movbe [rsi+2], ebp", "movbe [rsi+3], dx"],
    "cx16": ["cmpxchg16b [rsi]", "lock cmpxchg16b [rsi+16]"],
    "clwb": ["clwb [rsi]"],
    "clflushopt": ["clflushopt [rsi]", "clflush [rsi+3]"],
}  # fmt: skip
UNDEFINED = {
    **dict.fromkeys(("lzcnt", "tzcnt"), OF | SF | AF | PF),
    **dict.fromkeys(("andn", "blsr", "blsi", "blsmsk", "bzhi"), AF | PF),
    "bextr": AF | SF | PF,
}

LOGIC = ("pxor", "pand", "por", "pandn")
FLOAT_LOGIC = ("xorps", "andps", "orps", "andnps", "xorpd", "andpd", "orpd", "andnpd")
ARITHMETIC = tuple(
    """
    paddb paddw paddd paddq psubb psubw psubd psubq pcmpeqb pcmpeqw pcmpeqd pcmpgtb pcmpgtw
    pcmpgtd pminub pmaxub pminsw pmaxsw paddsb paddsw paddusb paddusw psubsb psubsw psubusb
    psubusw pavgb pavgw punpcklbw punpcklwd punpckldq punpcklqdq punpckhbw punpckhwd punpckhdq
    punpckhqdq packsswb packssdw packuswb pmuludq pmullw pmulhuw pmulhw pmaddwd psadbw
    psllw pslld psllq psrlw psrld psrlq psraw psrad
    """.split()  # noqa: SIM905 - a list of strings would be a screenful
)
NEWER = {
    "ssse3": ["pshufb"],
    "sse4_1": ["pcmpeqq", "pminsb", "pmaxsb", "pminuw", "pmaxuw", "pminsd", "pmaxsd", "pminud",
               "pmaxud", "pmulld", "packusdw"],
    "sse4_2": ["pcmpgtq"],
}  # fmt: skip
UNPACK = ("unpcklps", "unpckhps", "unpcklpd", "unpckhpd")
IMMEDIATE = ("pshufd", "pshufhw", "pshuflw")
TWO_AND_IMMEDIATE = {"ssse3": ["palignr"], "sse2": ["shufps", "shufpd"]}
SHIFTS = ("psllw", "pslld", "psllq", "psrlw", "psrld", "psrlq", "psraw", "psrad")
UNALIGNED = ("movups", "movupd", "movdqu")
ALIGNED = ("movaps", "movapd", "movdqa")


def _vector_lines() -> dict[str, list[str]]:
    binaries = [*LOGIC, *FLOAT_LOGIC, *ARITHMETIC, *UNPACK]
    sse = [f"{name} xmm1, xmm9" for name in binaries]
    sse += [f"{name} xmm12, [rsi+16]" for name in binaries]
    avx, avx2 = [], []
    for name in binaries:
        avx += [f"v{name} xmm1, xmm9, xmm2", f"v{name} xmm1, xmm2, [rsi+3]"]
        integer = name.startswith("p")
        last = "x" if name in SHIFTS else "y"  # a shift's count is 16 bytes
        (avx2 if integer else avx).extend(
            (f"v{name} ymm3, ymm14, {last}mm5", f"v{name} ymm3, ymm3, {last}mmword ptr [rsi+5]")
        )
    for name in IMMEDIATE:
        sse += [f"{name} xmm1, xmm2, 0x1b", f"{name} xmm1, [rsi], 0xd2"]
        avx2.append(f"v{name} ymm1, ymm2, 0x93")
    for name in SHIFTS:
        width = {"w": 16, "d": 32, "q": 64}[name[-1]]
        for count in (0, 3, width - 1, width, 200):
            sse.append(f"{name} xmm3, {count}")
        avx2.append(f"v{name} ymm3, ymm4, 7")
    for name in ("pslldq", "psrldq"):
        sse += [f"{name} xmm3, {count}" for count in (0, 5, 15, 16, 255)]
        avx2.append(f"v{name} ymm3, ymm4, 6")
    for name in UNALIGNED:
        sse += [f"{name} xmm1, xmm11", f"{name} xmm1, [rsi+1]", f"{name} [rsi+9], xmm4"]
        avx += [f"v{name} ymm1, ymm11", f"v{name} ymm1, [rsi+1]", f"v{name} [rsi+9], ymm4"]
        avx += [f"v{name} xmm1, [rsi+1]"]
    for name in ALIGNED:
        sse += [f"{name} xmm1, xmm11", f"{name} xmm1, [rsi+16]", f"{name} [rsi+32], xmm4"]
        avx += [f"v{name} ymm1, [rsi+32]", f"v{name} [rsi], ymm4", f"v{name} xmm1, xmm2"]
    for name in ("movntps", "movntpd", "movntdq"):
        sse.append(f"{name} [rsi+16], xmm4")
        avx.append(f"v{name} [rsi+32], ymm4")
    sse += [
        "movd xmm1, eax", "movd r9d, xmm1", "movd xmm1, dword ptr [rsi]",
        "movd dword ptr [rsi], xmm3", "movq xmm1, rax", "movq r9, xmm1", "movq xmm1, xmm2",
        "movq xmm1, qword ptr [rsi+1]", "movq qword ptr [rsi], xmm3", "movss xmm1, xmm2",
        "movss xmm1, dword ptr [rsi]", "movss dword ptr [rsi], xmm3", "movsd xmm1, xmm2",
        "movsd xmm1, qword ptr [rsi]", "movsd qword ptr [rsi], xmm3", "movlps xmm1, [rsi]",
        "movlps [rsi], xmm1", "movhps xmm1, [rsi]", "movhps [rsi], xmm1", "movlpd xmm1, [rsi]",
        "movhpd [rsi], xmm1", "movlhps xmm1, xmm2", "movhlps xmm1, xmm2", "pmovmskb eax, xmm3",
        "movmskps ecx, xmm3", "movmskpd r8d, xmm3", "pextrw eax, xmm3, 5", "pinsrw xmm3, eax, 6",
        "pinsrw xmm3, word ptr [rsi+1], 1", "shufps xmm1, xmm2, 0x4e", "shufps xmm1, [rsi], 0xb1",
        "shufpd xmm1, xmm2, 1", "shufpd xmm1, xmm2, 2",
    ]  # fmt: skip
    avx += [
        "vmovd xmm1, eax", "vmovd r9d, xmm1", "vmovq xmm1, rax", "vmovq xmm1, xmm2",
        "vmovq qword ptr [rsi], xmm3", "vmovss xmm1, xmm2, xmm3", "vmovss xmm1, dword ptr [rsi]",
        "vmovsd xmm1, xmm2, xmm3", "vmovsd qword ptr [rsi], xmm3", "vmovlps xmm1, xmm2, [rsi]",
        "vmovhps xmm1, xmm2, [rsi]", "vmovlhps xmm1, xmm2, xmm3", "vmovhlps xmm1, xmm2, xmm3",
        "vmovmskps eax, ymm3", "vpmovmskb eax, xmm3", "vbroadcastss ymm1, dword ptr [rsi]",
        "vbroadcastsd ymm1, qword ptr [rsi]", "vbroadcastf128 ymm1, [rsi]",
        "vextractf128 xmm1, ymm2, 1", "vextractf128 [rsi+1], ymm2, 0",
        "vinsertf128 ymm1, ymm2, xmm3, 1", "vinsertf128 ymm1, ymm2, [rsi], 0",
        "vperm2f128 ymm1, ymm2, ymm3, 0x31", "vperm2f128 ymm1, ymm2, ymm3, 0x80", "vzeroupper",
        "vzeroall", "vptest ymm1, ymm2", "vptest xmm1, xmm2", "vshufps ymm1, ymm2, ymm3, 0x4e",
        "vshufpd ymm1, ymm2, ymm3, 0x5", "vpextrw eax, xmm3, 5", "vpinsrw xmm1, xmm3, eax, 6",
        "vpextrq rax, xmm3, 1", "vpinsrd xmm1, xmm3, [rsi], 2", "vlddqu ymm1, [rsi+1]",
    ]  # fmt: skip
    avx2 += [
        "vpbroadcastb ymm1, xmm2", "vpbroadcastw ymm1, word ptr [rsi]", "vpbroadcastd ymm1, xmm2",
        "vpbroadcastq xmm1, qword ptr [rsi]", "vbroadcasti128 ymm1, [rsi]",
        "vbroadcastss xmm1, xmm2", "vextracti128 xmm1, ymm2, 1",
        "vinserti128 ymm1, ymm2, [rsi], 1", "vperm2i128 ymm1, ymm2, ymm3, 0x20",
        "vpermq ymm1, ymm2, 0x4e", "vpermpd ymm1, [rsi], 0x1b", "vpmovmskb eax, ymm3",
        "vpalignr ymm1, ymm2, ymm3, 5", "vpshufb ymm1, ymm2, ymm3",
        "vmovntdqa ymm1, ymmword ptr [rsi]",
    ]  # fmt: skip
    lines = {"sse2": sse, "avx": avx, "avx2": avx2, "pni": ["lddqu xmm1, [rsi+1]"]}
    for flag, names in NEWER.items():
        lines[flag] = [f"{name} xmm1, xmm9" for name in names]
        lines[flag] += [f"{name} xmm1, [rsi+16]" for name in names]
    lines["ssse3"] += ["pabsb xmm1, xmm2", "pabsw xmm1, [rsi]", "pabsd xmm1, xmm2"]
    lines["ssse3"] += [f"palignr xmm1, xmm2, {count}" for count in (0, 5, 16, 20, 40)]
    lines["sse4_1"] += [
        "ptest xmm1, xmm2", "ptest xmm1, [rsi]", "pextrb eax, xmm3, 7", "pextrb [rsi], xmm3, 9",
        "pextrd ecx, xmm3, 2", "pextrq rcx, xmm3, 1", "pextrq [rsi+1], xmm3, 0",
        "pinsrb xmm3, eax, 9", "pinsrb xmm3, byte ptr [rsi+1], 3", "pinsrd xmm3, ecx, 3",
        "pinsrq xmm3, rcx, 1", "movntdqa xmm1, [rsi]",
    ]  # fmt: skip
    return lines


XSAVE = {
    "xsave": ["xsave [rsi]", "xsave64 [rsi]", "xrstor [rsi]", "xrstor64 [rsi]"],
    "xsaveopt": ["xsaveopt [rsi]", "xsaveopt64 [rsi]"],
    "xsavec": ["xsavec [rsi]", "xsavec64 [rsi]"],
    "fxsr": ["fxsave [rsi]", "fxsave64 [rsi]", "fxrstor [rsi]", "fxrstor64 [rsi]"],
    "fpu": ["fnclex", "fninit", "fwait", "fild word ptr [rsi]", "fild dword ptr [rsi]",
            "fild qword ptr [rsi]"],
    "mmx": ["emms"],
    "sse": ["stmxcsr [rsi]", "ldmxcsr [rsi]"],
}  # fmt: skip


def _random_area(rng: random.Random, xcr0: int) -> bytes:
    """An XSAVE area with random registers and control words that mask every exception."""
    area = bytearray(rng.randbytes(XSAVE_BYTES))
    area[0:24] = bytes(24)
    area[0:2] = (0x037F | rng.getrandbits(2) << 10).to_bytes(2, "little")
    area[2:4] = (rng.getrandbits(16) & 0x7F00 & ~0x80).to_bytes(2, "little")
    area[4] = rng.getrandbits(8)
    area[24:32] = (0x1F80 | rng.getrandbits(2) << 13).to_bytes(4, "little") + bytes(4)
    for register in range(8):  # 80 bits each
        area[32 + 16 * register + 10 : 48 + 16 * register] = bytes(6)
    area[416:512] = bytes(96)
    in_use = 0
    for component in range(8):
        if xcr0 >> component & 1 and rng.random() < 0.8:
            in_use |= 1 << component
    area[512:576] = in_use.to_bytes(8, "little") + bytes(56)
    return bytes(area)


def _check(
    line: str,
    code: bytes,
    rng: random.Random,
    *,
    area_in_memory: bool = False,
    by_unicorn: bool = False,
) -> None:
    native = native_cpu()
    registers = random_registers(rng, native.scratch_address)
    flags = rng.getrandbits(12) & LOADED_FLAGS
    area = _random_area(rng, native.xcr0)
    if by_unicorn:  # a stack with four registers in use and four empty
        area = area[:2] + b"\0\0\x0f" + area[5:512] + b"\xe7" + area[513:]
    area = _loaded(area)
    scratch = bytearray(rng.randbytes(SCRATCH_SIZE))
    if area_in_memory:
        _place_area(line, scratch, registers, rng)
    if line.endswith("cmpxchg16b [rsi]") and rng.random() < 0.5:
        registers["rax"] = int.from_bytes(scratch[SCRATCH_AT : SCRATCH_AT + 8], "little")
        registers["rdx"] = int.from_bytes(scratch[SCRATCH_AT + 8 : SCRATCH_AT + 16], "little")
    given = (registers, flags, area, bytes(scratch))
    expected = native.run(code, *given)
    found = GuestState(*given, native.scratch_address, native.xcr0).run(code)
    defined = LOADED_FLAGS & ~UNDEFINED.get(line.split()[0], 0)
    assert found.registers == expected.registers, line
    assert found.flags & defined == expected.flags & defined, line
    assert found.scratch == expected.scratch, line
    shown = [_shown(outcome.xsave, by_unicorn) for outcome in (found, expected)]
    assert shown[0] == shown[1], line


def _loaded(area: bytes) -> bytes:
    """`area` as the CPU holds it after loading it: initial where XSTATE_BV says so."""
    native = native_cpu()
    nothing = (dict.fromkeys(random_registers(random.Random(0), 0), 0), 0)
    return native.run(b"\x90", *nothing, area, bytes(SCRATCH_SIZE)).xsave


def _shown(area: bytes, by_unicorn: bool) -> dict[str, bytes]:
    """The parts of an XSAVE area that mean something, by name."""
    if by_unicorn:
        status, mxcsr = area[3] & ~C1, area[24] & ~MXCSR_EXCEPTIONS
        area = area[:2] + bytes([0, status]) + area[4:24] + bytes([mxcsr]) + area[25:]
    return {
        "x87": area[:5] + area[32:160],  # not the pointers: when they are set differs
        "mxcsr": area[24:28],
        "xmm": area[160:416],
        "avx": area[576:832],
        "opmask": area[1088:1152],
        "zmm_hi256": area[1152:1664],
        "hi16_zmm": area[1664:2688],
    }


def _place_area(
    line: str, scratch: bytearray, registers: dict[str, int], rng: random.Random
) -> None:
    native = native_cpu()
    registers["rsi"] = registers["rsi"] & -64
    registers["rax"], registers["rdx"] = rng.getrandbits(32), rng.getrandbits(32)
    if "rstor" in line:
        image = bytearray(_random_area(rng, native.xcr0))
        if rng.random() < 0.2:
            image[512:520] = (int.from_bytes(image[512:520], "little") & ~2).to_bytes(8, "little")
        scratch[SCRATCH_AT : SCRATCH_AT + len(image)] = image
    elif "ldmxcsr" in line:
        scratch[SCRATCH_AT : SCRATCH_AT + 4] = (0x1F80 | rng.getrandbits(6)).to_bytes(4, "little")


@pytest.fixture(scope="module")
def machine_code(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    groups = (INTEGER, VECTOR, XSAVE, UNICORN)
    lines = [line for group in groups for lines in group.values() for line in lines]
    return assemble(lines, tmp_path_factory.mktemp("assembled"))


VECTOR = _vector_lines()
UNICORN = {
    "sse": ["addps xmm1, xmm2", "mulps xmm1, [rsi+16]", "sqrtps xmm1, xmm2", "addss xmm1, xmm3",
            "cvtsi2ss xmm1, rcx", "cmpltps xmm1, xmm2", "minps xmm1, xmm2"],
    "sse2": ["subpd xmm1, xmm9", "divsd xmm1, xmm2", "cvtdq2pd xmm1, xmm2", "addsd xmm3, [rsi+3]",
             "cvttsd2si rax, xmm3", "pshufw mm1, mm2, 0x1b"],
    "pni": ["haddps xmm1, xmm2", "movddup xmm1, xmm2"],
    "ssse3": ["phaddw xmm1, xmm2", "psignb xmm1, [rsi]"],
    "sse4_1": ["pblendw xmm1, xmm2, 0x5a", "roundpd xmm1, xmm2, 1", "phminposuw xmm1, xmm2",
               "pmovzxbd xmm1, xmm2", "insertps xmm1, xmm2, 0x4c"],
    "sse4_2": ["pcmpistri xmm1, xmm2, 0x0c"],
    "aes": ["aesenc xmm1, xmm2", "aesdeclast xmm1, [rsi]", "aeskeygenassist xmm1, xmm2, 7"],
    "pclmulqdq": ["pclmulqdq xmm1, xmm2, 0x11"],
    "mmx": ["paddb mm1, mm2", "movq mm3, [rsi]", "movq [rsi+4], mm5"],
    "fpu": ["fld1", "fldz", "fst qword ptr [rsi]", "fxch", "fchs", "fistp dword ptr [rsi]",
            "fld tbyte ptr [rsi]"],
}  # fmt: skip
MXCSR_EXCEPTIONS, C1 = 0x3F, 0x02
"""What unicorn leaves: the exception flags of both, and C1 of the status word's second byte."""


@pytest.mark.parametrize("flag", [*INTEGER, *VECTOR])
def test_the_result_is_the_cpus(flag: str, machine_code: dict[str, bytes]) -> None:
    if flag not in host_flags():
        pytest.skip(f"this CPU has no {flag}")
    rng = random.Random(flag)
    for line in [*INTEGER.get(flag, ()), *VECTOR.get(flag, ())]:
        for _ in range(ROUNDS):
            _check(line, machine_code[line], rng)


@pytest.mark.parametrize("flag", [*XSAVE])
def test_saving_and_restoring_is_the_cpus(flag: str, machine_code: dict[str, bytes]) -> None:
    if flag not in host_flags():
        pytest.skip(f"this CPU has no {flag}")
    rng = random.Random(flag)
    for line in XSAVE[flag]:
        for _ in range(3 * ROUNDS):
            _check(line, machine_code[line], rng, area_in_memory=True)


@pytest.mark.parametrize("flag", [*UNICORN])
def test_what_unicorn_runs_is_the_cpus(flag: str, machine_code: dict[str, bytes]) -> None:
    pytest.importorskip("unicorn")
    if flag not in host_flags():
        pytest.skip(f"this CPU has no {flag}")
    rng = random.Random(flag)
    for line in UNICORN[flag]:
        for _ in range(4):
            _check(line, machine_code[line], rng, by_unicorn=True)
