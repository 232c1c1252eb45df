"""Guest memory by pages: packed without zeros, and which of them were written."""

from __future__ import annotations

import os

import pytest
from kvm_guests import real_mode_guest

from cpufw.errors import KvmError
from cpufw.kvm import GuestMemory, MemoryBackend

PAGE = 4096


def bits(bitmap: bytes) -> set[int]:
    number = int.from_bytes(bitmap, "little")
    return {page for page in range(number.bit_length()) if number >> page & 1}


def test_pages_of_zeros_are_left_out() -> None:
    first, last = os.urandom(PAGE), bytes(PAGE - 1) + b"\x01"
    with GuestMemory(16 * PAGE) as memory, GuestMemory(16 * PAGE) as copy:
        memory.write(3 * PAGE, first)
        memory.write(12 * PAGE, last)
        filled, data = memory.pack_pages(PAGE, 12, b"\xff\x0f")
        assert bits(filled) == {2, 11}
        assert data == first + last
        assert memory.pack_pages(PAGE, 12, b"\xfb\x07") == (bytes(2), b"")
        for page in range(16):
            copy.write(page * PAGE, b"old")
        copy.unpack_pages(PAGE, 12, b"\xfe\x0f", filled, data)
        assert [copy.read(page * PAGE, 3) for page in (0, 1, 2, 13)] == [
            *(b"old", b"old"),  # before, and not wanted
            *(bytes(3), b"old"),  # wanted, and behind
        ]
        assert copy.read(3 * PAGE, PAGE) == first
        assert copy.read(12 * PAGE, PAGE) == last


def test_what_was_never_used_is_known_without_a_look() -> None:
    number = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        with GuestMemory(1024 * PAGE) as memory:
            assert memory.is_untouched(0, 512, number)
            memory.write(700 * PAGE, b"x")
            assert memory.is_untouched(0, 512, number)
            assert not memory.is_untouched(512 * PAGE, 512, number)
        with GuestMemory(16 * PAGE, MemoryBackend(memfd=True)) as memory:
            assert not memory.is_untouched(0, 16, number)
    finally:
        os.close(number)


def test_what_does_not_fit_is_refused() -> None:
    with GuestMemory(4 * PAGE) as memory:
        with pytest.raises(KvmError, match="not inside guest memory"):
            memory.pack_pages(PAGE, 4, b"\x0f")
        with pytest.raises(KvmError, match="a bitmap of 2 bytes for 4 pages"):
            memory.pack_pages(0, 4, b"\x0f\x00")
        with pytest.raises(KvmError, match="not the pages announced"):
            memory.unpack_pages(0, 4, b"\x0f", b"\x03", bytes(PAGE))


@pytest.mark.kvm
def test_the_dirty_log_knows_who_wrote() -> None:
    # mov byte [0x2000], 1; hlt; mov byte [0x9000], 1; hlt
    with real_mode_guest(bytes.fromhex("c606002001 f4 c606009001 f4")) as guest:
        guest.vcpu.run()
        guest.vm.log_dirty_pages(0, True)
        guest.vm.get_dirty_log(0)
        guest.vcpu.run()
        guest.memory.write(0x4_2FFF, b"xy")
        guest.memory.note_written(0x5_0000, 1)
        assert bits(guest.vm.get_dirty_log(0)) == {0x9, 0x42, 0x43, 0x50}
        assert bits(guest.vm.get_dirty_log(0)) == set()
        guest.vm.log_dirty_pages(0, False)
        guest.memory.write(0, b"x")
        guest.vm.log_dirty_pages(0, True)
        assert bits(guest.vm.get_dirty_log(0)) == set()
