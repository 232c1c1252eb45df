"""Instructions in ring 0 of real guests, which KVM may hand back to the assist."""

from __future__ import annotations

from pathlib import Path

import pytest
from assist_guests import NOT_MAPPED, READ_ONLY_PAGE, USER_PAGE, Trap, guest, run_all
from native_cpu import host_flags

from cpufw.errors import UsageError
from cpufw.kvm import InternalErrorExit
from cpufw_x86.assist import Assist
from cpufw_x86.assist.backend import host_has_hardware_virtualization, is_pvm
from cpufw_x86.kvm import X86KVM

pytestmark = pytest.mark.kvm
PF, GP, UD, NM, BP, DB = 14, 13, 6, 7, 3, 1


def _run(program: str, folder: Path, results: int) -> list[int]:
    with guest(program, folder) as made:
        made.finish()
        assert made.trap.rip == 0, f"the guest took an exception: {made.trap}"
        return made.results(results)


def _trap(program: str, folder: Path) -> tuple[Trap, int]:
    """The exception that ends the program, and the first result."""
    with guest(program, folder) as made:
        made.finish()
        assert made.trap.rip, "the guest took no exception"
        return made.trap, made.results(1)[0]


def test_popcnt(tmp_path: Path) -> None:
    program = """
        mov rcx, 0x8000000000f0
        popcnt rax, rcx
        mov [results], rax
        popcnt ax, cx
        mov [results + 8], rax
        popcnt edx, dword ptr [results]
        mov [results + 16], rdx
        mov ecx, 0
        popcnt ecx, ecx
        setz [results + 24]
        hlt
    """
    assert _run(program, tmp_path, 4) == [5, 4, 2, 1]


@pytest.mark.parametrize(("rax", "expected"), [(7, (1, 0x11, 7, 8)), (5, (0, 7, 7, 8))])
def test_cmpxchg16b(tmp_path: Path, rax: int, expected: tuple[int, ...]) -> None:
    program = f"""
        mov qword ptr [results + 32], 7
        mov qword ptr [results + 40], 8
        mov eax, {rax}
        mov edx, 8
        mov ebx, 0x11
        mov ecx, 0x22
        lock cmpxchg16b [results + 32]
        setz byte ptr [results]
        mov rcx, [results + 32]
        mov [results + 8], rcx
        mov [results + 16], rax
        mov [results + 24], rdx
        hlt
    """
    assert tuple(_run(program, tmp_path, 4)) == expected


def test_locked_exchanges_of_two_cpus_lose_nothing(tmp_path: Path) -> None:
    program = """
        mov edi, 200
    again:
        mov rax, [results]
        mov rdx, [results + 8]
    retry:
        mov rbx, rax
        mov rcx, rdx
        inc rbx
        dec rcx
        lock cmpxchg16b [results]
        jnz retry
        dec edi
        jnz again
        lock inc qword ptr [results + 16]
    wait:
        pause
        cmp qword ptr [results + 16], 2
        jne wait
        cli
        mov al, 1
        out 0x80, al
    """
    with guest(program, tmp_path, cpus=2) as made:
        run_all(made)
        assert made.results(2) == [400, (1 << 64) - 400]


def test_clac_and_stac(tmp_path: Path) -> None:
    program = """
        mov rax, cr4
        or eax, 0x200000
        mov cr4, rax
        stac
        pushfq
        pop [results]
        clac
        pushfq
        pop [results + 8]
        hlt
    """
    stac, clac = _run(program, tmp_path, 2)
    assert stac & 1 << 18
    assert not clac & 1 << 18


@pytest.mark.parametrize(
    ("instruction", "vector", "length"), [("int3", BP, 1), ("int 0x21", 0x21, 2), ("int 3", BP, 1)]
)
def test_software_interrupts(tmp_path: Path, instruction: str, vector: int, length: int) -> None:
    program = f"""
        lea rax, [rip + here]
        mov [results], rax
    here:
        {instruction}
        hlt
    """
    trap, here = _trap(program, tmp_path)
    assert (trap.vector, trap.rip) == (vector, here + length)


@pytest.mark.parametrize(
    ("instruction", "trap"),
    [
        (f"cmpxchg16b [{NOT_MAPPED:#x}]", (PF, 0b010, NOT_MAPPED)),
        (f"popcnt rax, [{NOT_MAPPED + 8:#x}]", (PF, 0b000, NOT_MAPPED + 8)),
        (f"cmpxchg16b [{READ_ONLY_PAGE:#x}]", (PF, 0b011, READ_ONLY_PAGE)),
        ("cmpxchg16b [results + 8]", (GP, 0, 0)),
        ("movaps xmm0, [results + 8]", (GP, 0, 0)),
        ("xorps xmm0, [results + 4]", (GP, 0, 0)),
        ("movdqa [results + 1], xmm3", (GP, 0, 0)),
        ("mov rax, 0x8000000000000000; popcnt rax, [rax]", (GP, 0, 0)),
        ("ud2", (UD, 0, 0)),
        ("clts; mov rax, cr0; or al, 8; mov cr0, rax; xorps xmm0, xmm0", (NM, 0, 0)),
        ("mov rax, cr0; or al, 8; mov cr0, rax; wait", (NM, 0, 0)),
        ("mov rax, cr4; and ah, 0xfd; mov cr4, rax; xorps xmm0, xmm1", (UD, 0, 0)),
        ("xgetbv", (UD, 0, 0)),
    ],
)
def test_faults(tmp_path: Path, instruction: str, trap: tuple[int, int, int]) -> None:
    last = instruction.split(";")[-1]
    before = "\n".join(instruction.split(";")[:-1])
    program = f"""
        lea rax, [rip + here]
        mov [results], rax
        {before}
    here:
        {last}
        hlt
    """
    found, here = _trap(program, tmp_path)
    assert (found.vector, found.error_code, found.cr2) == trap
    assert found.rip == here


def test_a_page_that_only_ring_3_may_use_is_kept_from_ring_0_by_smap(tmp_path: Path) -> None:
    program = f"""
        mov rax, cr4
        or eax, 0x200000
        mov cr4, rax
        stac
        popcnt rax, [{USER_PAGE:#x}]
        clac
        popcnt rax, [{USER_PAGE:#x}]
        hlt
    """
    trap, _ = _trap(program, tmp_path)
    assert (trap.vector, trap.error_code, trap.cr2) == (PF, 0b001, USER_PAGE)


def test_xsave_and_xrstor_carry_registers(tmp_path: Path) -> None:
    program = """
        mov rax, cr4
        or eax, 0x40000
        mov cr4, rax
        xor ecx, ecx
        xor edx, edx
        mov eax, 3
        xsetbv
        xgetbv
        mov [results], rax
        mov rax, 0x1122334455667788
        movq xmm5, rax
        mov eax, 3
        xor edx, edx
        xsave [0x50000]
        xorps xmm5, xmm5
        movq [results + 8], xmm5
        xrstor [0x50000]
        movq [results + 16], xmm5
        mov rax, [0x50000 + 512]
        mov [results + 24], rax
        fninit
        hlt
    """
    xcr0, cleared, restored, in_use = _run(program, tmp_path, 4)
    assert (xcr0, cleared, restored) == (3, 0, 0x1122334455667788)
    assert in_use & 2


def test_descriptors(tmp_path: Path) -> None:
    program = """
        mov ecx, 0x10
        lar rax, cx
        mov [results], rax
        lsl eax, ecx
        mov [results + 8], rax
        mov ecx, 0x28
        lsl rax, cx
        mov [results + 16], rax
        xor eax, eax
        mov ecx, 0x50
        lsl eax, ecx
        setz al
        mov [results + 24], rax
        verr [selector]
        setz al
        mov [results + 32], rax
        mov ecx, 8
        verw cx
        setz al
        mov [results + 40], rax
        mov ecx, 0x40
        lar rax, cx
        mov [results + 48], rax
        mov ecx, 0x30
        lsl eax, ecx
        setz al
        movzx eax, al
        mov [results + 56], rax
        hlt
    selector: .word 0x10
    """
    found = _run(program, tmp_path, 8)
    found[0] &= ~0xF0000  # undefined
    assert found == [0xC09300, 0xFFFF_FFFF, 0xFFF, 0, 1, 0, 0x8900, 0]


def test_a_single_step_over_an_assisted_instruction_traps_behind_it(tmp_path: Path) -> None:
    program = """
        lea rax, [rip + behind]
        mov [results], rax
        pushfq
        or dword ptr [rsp], 0x100
        popfq
        popcnt rax, rcx
    behind:
        hlt
    """
    trap, behind = _trap(program, tmp_path)
    assert (trap.vector, trap.rip) == (DB, behind)


def test_a_system_call_from_ring_3(tmp_path: Path) -> None:
    program = f"""
        mov ecx, 0xc0000081
        xor eax, eax
        mov edx, 0x00100008
        wrmsr
        mov ecx, 0xc0000084
        mov eax, 0x200
        xor edx, edx
        wrmsr
        mov ecx, 0xc0000082
        lea rax, [rip + entry]
        wrmsr
        rdmsr
        lea rcx, [rip + entry]
        sub rax, rcx
        mov [results], rax
        lea rsi, [rip + user]
        mov edi, {USER_PAGE:#x}
        mov ecx, 64
        rep movsb
        push 0x1b
        push 0
        push 0x202
        push 0x23
        push {USER_PAGE:#x}
        iretq
    user:
        mov eax, 0x1234
        syscall
        jmp user
    entry:
        mov rsp, 0x38000
        mov [results + 8], rax
        mov [results + 16], rcx
        mov [results + 24], r11
        mov ax, cs
        movzx eax, ax
        mov [results + 32], rax
        pushfq
        pop [results + 40]
        mov ax, ss
        movzx eax, ax
        mov [results + 48], rax
        hlt
    """
    with guest(program, tmp_path) as made:
        made.finish()
        lstar, rax, rcx, r11, cs, rflags, ss = made.results(7)
    assert lstar == 0, "the guest does not read the LSTAR that it wrote"
    assert (rax, cs, ss) == (0x1234, 8, 0x10)
    assert rcx == USER_PAGE + 7
    assert r11 & 0x202 == 0x202
    assert not rflags & 0x200, "FMASK did not clear IF"


def test_where_no_page_table_is_for_it_the_trampoline_is_refused(tmp_path: Path) -> None:
    program = """
        mov qword ptr [0x10000 + 511 * 8], 0
        mov rax, cr3
        mov cr3, rax
        mov ecx, 0xc0000082
        mov eax, 0x1234
        xor edx, edx
        wrmsr
        rdmsr
        mov [results], rax
        hlt
    """
    with guest(program, tmp_path) as made:
        made.finish()
        assert made.results(1) == [0x1234]
        if not host_has_hardware_virtualization():
            assert "no page table" in made.assist.notes()[0]


def test_what_nobody_can_finish_is_said(tmp_path: Path) -> None:
    with X86KVM() as kvm:
        if not is_pvm(kvm):
            pytest.skip("this KVM does not hand instructions back")
    with guest("vaddps zmm0, zmm1, zmm2\nhlt", tmp_path) as made:
        exit = made.run()
        assert isinstance(exit, InternalErrorExit)
        assert "vaddps" in made.assist.refusal
        assert made.assist.report() == {}


def test_what_nobody_can_finish_in_ring_3_is_the_programs_fault(tmp_path: Path) -> None:
    program = f"""
        mov qword ptr [0x13000 + 0x42 * 8], 0x40000007  # no memory is there: KVM has to emulate
        lea rsi, [rip + user]
        mov edi, {USER_PAGE:#x}
        mov ecx, 64
        rep movsb
        push 0x1b
        push 0
        push 0x2
        push 0x23
        push {USER_PAGE:#x}
        iretq
    user:
        vaddps zmm0, zmm1, [0x42000]
        hlt
    """
    trap, _ = _trap(program, tmp_path)
    assert (trap.vector, trap.rip, trap.cs) == (UD, USER_PAGE, 0x23)


@pytest.mark.parametrize(
    ("mode", "active"),
    [("off", False), ("on", True), ("auto", not host_has_hardware_virtualization())],
)
def test_whether_it_is_active(tmp_path: Path, mode: str, active: bool) -> None:
    with guest("hlt", tmp_path, mode=mode) as made:
        assert made.assist.active is active


def test_another_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="assist 'yes' is not one of auto, on, off"):
        Assist("yes")


def test_vector_state_outside_the_kernels_xcr0_goes_with_the_program(tmp_path: Path) -> None:
    """On PVM ring 3 has the host's AVX-512, whatever the guest's kernel saves and restores."""
    with X86KVM() as kvm:
        if not is_pvm(kvm) or "avx512f" not in host_flags():
            pytest.skip("ring 3 has no more vector state than its kernel knows of")
    program = f"""
        mov rax, cr4
        or eax, 0x40000
        mov cr4, rax
        xor ecx, ecx
        xor edx, edx
        mov eax, 7
        xsetbv
        mov ecx, 0xc0000081
        mov edx, 0x00100008
        xor eax, eax
        wrmsr
        mov ecx, 0xc0000082
        xor edx, edx
        lea rax, [rip + entry]
        wrmsr
        mov rax, 0x1122
        mov rbx, 0x3344
        lea rsi, [rip + user]
        mov edi, {USER_PAGE:#x}
        mov ecx, 256
        rep movsb
        push 0x1b
        push 0
        push 0x2
        push 0x23
        push {USER_PAGE:#x}
        iretq
    user:
        mov eax, 0x1122
        vpbroadcastd zmm20, eax  # one program
        syscall
        mov eax, 0x3344
        vpbroadcastd zmm20, eax  # another
        syscall
        vmovd eax, xmm20
        syscall
    entry:
        mov rsp, 0x38000
        mov r12, rcx
        mov r13, rax
        mov eax, -1
        mov edx, -1
        inc qword ptr [results]
        cmp qword ptr [results], 1
        jne second
        xsave [0x50000]
        jmp return
    second:
        cmp qword ptr [results], 2
        jne last
        xsave [0x51000]
        mov eax, -1
        xrstor [0x50000]
    return:
        push 0x1b
        push 0
        push 0x2
        push 0x23
        push r12
        iretq
    last:
        mov [results + 8], r13
        hlt
    """
    with guest(program, tmp_path) as made:
        made.finish()
        assert made.results(2) == [3, 0x1122]
