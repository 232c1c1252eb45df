"""What a guest does and what `run` returns for it."""

from __future__ import annotations

import pytest
from kvm_guests import CODE, NO_MEMORY_HERE, Guest, long_mode_guest, real_mode_guest

from cpufw.errors import KvmError
from cpufw.kvm import (
    GuestMemory,
    HltExit,
    InternalErrorExit,
    IoExit,
    MmioExit,
    ShutdownExit,
)

pytestmark = pytest.mark.kvm

HLT = b"\xf4"
EAX = 0x8765_4321


@pytest.mark.parametrize(
    ("code", "size"),
    [(b"\xe6\x10", 1), (b"\xe7\x10", 2), (b"\x66\xe7\x10", 4)],
    ids=["out al", "out ax", "out eax"],
)
def test_out_shows_port_size_and_value(code: bytes, size: int) -> None:
    with real_mode_guest(code) as guest:
        guest.start_at(CODE, rax=EAX)
        io = guest.vcpu.run()
    assert isinstance(io, IoExit)
    assert (io.port, io.size, io.count, io.is_in) == (0x10, size, 1, False)
    assert io.data == EAX.to_bytes(4, "little")[:size]


@pytest.mark.parametrize(
    ("code", "size", "rax"),
    [
        (b"\xe4\x10", 1, 0x8765_4312),
        (b"\xe5\x10", 2, 0x8765_3412),
        (b"\x66\xe5\x10", 4, 0x7856_3412),
    ],
    ids=["in al", "in ax", "in eax"],
)
def test_in_gives_the_guest_the_answer(code: bytes, size: int, rax: int) -> None:
    with real_mode_guest(code + HLT) as guest:
        guest.start_at(CODE, rax=EAX)
        io = guest.vcpu.run()
        assert isinstance(io, IoExit)
        assert (io.port, io.size, io.is_in) == (0x10, size, True)
        io.value = 0x7856_3412 & ((1 << 8 * size) - 1)
        assert isinstance(guest.vcpu.run(), HltExit)
        assert guest.vcpu.get_regs().rax == rax


def test_unanswered_in_reads_all_ones() -> None:
    with real_mode_guest(b"\xe5\x10" + HLT) as guest:
        assert isinstance(guest.vcpu.run(), IoExit)
        assert isinstance(guest.vcpu.run(), HltExit)
        assert guest.vcpu.get_regs().rax == 0xFFFF


def string_io(guest: Guest, handle: str, data: bytes) -> bytes:
    """Run to HLT; serve INS from `data`, collect OUTS. KVM may hand over any number at a time."""
    seen = b""
    while isinstance(io := guest.vcpu.run(), IoExit):
        assert (io.port, io.is_in) == (0x20, handle == "in")
        length = io.size * io.count
        if io.is_in:
            io.data = data[len(seen) : len(seen) + length]
        seen += io.data
    assert isinstance(io, HltExit)
    return seen


WORDS = b"".join(number.to_bytes(2, "little") for number in range(0x100, 0x180))


def test_rep_outs_hands_over_every_item() -> None:
    with real_mode_guest(b"\xf3\x6f" + HLT) as guest:  # rep outsw
        guest.memory.write(0x2000, WORDS)
        guest.start_at(CODE, rsi=0x2000, rcx=len(WORDS) // 2, rdx=0x20)
        assert string_io(guest, "out", b"") == WORDS


def test_rep_ins_takes_every_item() -> None:
    with real_mode_guest(b"\xf3\x6d" + HLT) as guest:  # rep insw
        guest.start_at(CODE, rdi=0x2000, rcx=len(WORDS) // 2, rdx=0x20)
        string_io(guest, "in", WORDS)
        assert guest.memory.read(0x2000, len(WORDS)) == WORDS


def test_answer_of_the_wrong_length_is_refused() -> None:
    with real_mode_guest(b"\xe5\x10") as guest:
        io = guest.vcpu.run()
        assert isinstance(io, IoExit)
        with pytest.raises(KvmError, match=r"port 0x10: the answer has 1 bytes instead of 2 x 1"):
            io.data = b"x"


def mmio_guest(guest: Guest) -> None:
    """DS where no memory is."""
    sregs = guest.vcpu.get_sregs()
    sregs.ds.base = NO_MEMORY_HERE
    guest.vcpu.set_sregs(sregs)


def test_mmio_write_shows_address_and_value() -> None:
    with real_mode_guest(b"\xc7\x06\x10\x00\x34\x12" + HLT) as guest:  # mov word [0x10], 0x1234
        mmio_guest(guest)
        mmio = guest.vcpu.run()
        assert isinstance(mmio, MmioExit)
        assert (mmio.address, mmio.length, mmio.is_write) == (NO_MEMORY_HERE + 0x10, 2, True)
        assert (mmio.value, mmio.data) == (0x1234, b"\x34\x12")
        assert isinstance(guest.vcpu.run(), HltExit)


def test_mmio_read_gives_the_guest_the_answer() -> None:
    with real_mode_guest(b"\x66\xa1\x20\x00" + HLT) as guest:  # mov eax, [0x20]
        mmio_guest(guest)
        mmio = guest.vcpu.run()
        assert isinstance(mmio, MmioExit)
        assert (mmio.address, mmio.length, mmio.is_write) == (NO_MEMORY_HERE + 0x20, 4, False)
        mmio.value = 0xCAFE_F00D
        assert isinstance(guest.vcpu.run(), HltExit)
        assert guest.vcpu.get_regs().rax == 0xCAFE_F00D


def test_removed_memory_becomes_mmio_and_comes_back_elsewhere() -> None:
    code = b"\xa0\x00\x00" + HLT  # mov al, [0]
    with real_mode_guest(code) as guest, GuestMemory(0x1000) as extra:
        mmio_guest(guest)
        extra.write(0, b"\x5a")
        guest.vm.add_memory(1, NO_MEMORY_HERE, extra)
        assert isinstance(guest.vcpu.run(), HltExit)
        assert guest.vcpu.get_regs().rax == 0x5A

        with pytest.raises(KvmError, match=r"memory slot 1 is taken"):
            guest.vm.add_memory(1, NO_MEMORY_HERE * 2, extra)
        with pytest.raises(KvmError, match=r"KVM_SET_USER_MEMORY_REGION .*EEXIST .*overlaps"):
            guest.vm.add_memory(2, NO_MEMORY_HERE, extra)

        guest.vm.remove_memory(1)
        guest.start_at(CODE)
        assert isinstance(guest.vcpu.run(), MmioExit)
        assert isinstance(guest.vcpu.run(), HltExit)
        with pytest.raises(KvmError, match="memory slot 1 is empty"):
            guest.vm.remove_memory(1)
        guest.vm.close()


def test_writing_readonly_memory_exits_and_changes_nothing() -> None:
    with real_mode_guest(b"\xc6\x06\x00\x00\x77" + HLT) as guest, GuestMemory(0x1000) as rom:
        mmio_guest(guest)  # mov byte [0], 0x77
        guest.vm.add_memory(1, NO_MEMORY_HERE, rom, readonly=True)
        mmio = guest.vcpu.run()
        assert isinstance(mmio, MmioExit)
        assert (mmio.address, mmio.value, mmio.is_write) == (NO_MEMORY_HERE, 0x77, True)
        assert rom.read(0, 1) == b"\0"
        guest.vm.close()


def test_hlt_without_irqchip_exits_after_the_instruction() -> None:
    with real_mode_guest(HLT) as guest:
        assert isinstance(guest.vcpu.run(), HltExit)
        assert guest.vcpu.get_regs().rip == CODE + 1


def test_triple_fault_is_a_shutdown() -> None:
    with long_mode_guest(b"\x0f\x0b") as guest:  # ud2, and no IDT to find its handler in
        sregs = guest.vcpu.get_sregs()
        sregs.idt.limit = 0
        guest.vcpu.set_sregs(sregs)
        guest.start_at(CODE)
        assert isinstance(guest.vcpu.run(), ShutdownExit)


def test_code_where_no_memory_is_cannot_be_run() -> None:
    with real_mode_guest(HLT) as guest:
        sregs = guest.vcpu.get_sregs()
        sregs.cs.base = NO_MEMORY_HERE
        guest.vcpu.set_sregs(sregs)
        guest.start_at(0)
        exit = guest.vcpu.run()
        assert isinstance(exit, InternalErrorExit)
        assert exit.is_emulation_failure


def test_exit_shows_itself() -> None:
    with real_mode_guest(b"\xe6\x10") as guest:
        assert (
            repr(guest.vcpu.run())
            == "IoExit(count=0x1, is_in=False, port=0x10, size=0x1, value=0x0)"
        )
