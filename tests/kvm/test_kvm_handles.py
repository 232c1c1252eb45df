"""Opening, closing, and what a user reads when it goes wrong."""

from __future__ import annotations

import contextlib
import errno
import threading
from pathlib import Path

import pytest
from kvm_guests import in_thread, real_mode_guest

from cpufw.errors import KvmError
from cpufw.kvm import KVM, Exit, GuestMemory, Interrupted
from cpufw_x86.kvm import X86KVM


def open_files() -> dict[str, str]:
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor that lists the folder
            found[link.name] = str(link.readlink())
    return found


def test_missing_device_says_what_to_load() -> None:
    with pytest.raises(
        KvmError, match=r"/nowhere/kvm does not exist: load kvm_intel or kvm_amd"
    ) as caught:
        KVM("/nowhere/kvm")
    assert caught.value.errno == errno.ENOENT


def test_device_that_is_not_kvm_is_named_and_closed() -> None:
    before = open_files()
    with pytest.raises(
        KvmError, match=r"KVM_GET_API_VERSION on /dev/null .*not a KVM device"
    ) as caught:
        KVM("/dev/null")
    assert caught.value.ioctl == "KVM_GET_API_VERSION"
    assert caught.value.errno == errno.ENOTTY
    assert open_files() == before


def test_folder_instead_of_device_is_refused() -> None:
    with pytest.raises(KvmError, match="cannot open /dev: Is a directory"):
        KVM("/dev")


@pytest.mark.parametrize("size", [0, -4096, 4097])
def test_memory_of_no_whole_pages_is_refused(size: int) -> None:
    with pytest.raises(KvmError, match="positive multiple of the page size"):
        GuestMemory(size)


def test_memory_keeps_what_is_written_and_checks_its_ends() -> None:
    with GuestMemory(0x2000) as memory:
        memory.write(0x1FFE, b"ab")
        assert memory.read(0x1FFD, 3) == b"\0ab"
        with pytest.raises(KvmError, match=r"0x3 bytes at 0x1ffe are not inside"):
            memory.write(0x1FFE, b"xyz")
        with pytest.raises(KvmError, match="not inside"):
            memory.read(-1, 1)
        assert memory.read(0x1FFE, 2) == b"ab"


def test_memory_in_use_by_a_view_does_not_close() -> None:
    memory = GuestMemory(0x1000)
    with memory.memoryview() as view:
        view[0] = 7
        with pytest.raises(KvmError, match="a memoryview of it is in use"):
            memory.close()
    assert memory.read(0, 1) == b"\x07"
    memory.close()
    memory.close()
    with pytest.raises(KvmError, match="guest memory is closed"):
        memory.read(0, 1)


@pytest.mark.kvm
def test_closing_leaves_no_file_and_no_mapping() -> None:
    before = open_files()
    with KVM() as kvm, kvm.create_vm() as vm:
        vcpus = [vm.create_vcpu(id) for id in range(3)]
        assert len(open_files()) == len(before) + 5
        assert "kvm-vcpu" in Path("/proc/self/maps").read_text()
        for handle in (vcpus[0], vcpus[0], vm, kvm):  # closing twice does no harm
            handle.close()
    assert open_files() == before
    assert "kvm-vcpu" not in Path("/proc/self/maps").read_text()


@pytest.mark.kvm
def test_closed_handles_say_so() -> None:
    with KVM() as kvm, kvm.create_vm() as vm:
        vcpu = vm.create_vcpu(5)
        vcpu.close()
        for call in (vcpu.run, vcpu.get_mp_state, lambda: vcpu.run_page, lambda: vcpu.fd):
            with pytest.raises(KvmError, match="vCPU 5 is closed"):
                call()
        vcpu.kick()  # allowed: it does not run
        vm.close()
        with pytest.raises(KvmError, match="VM is closed"):
            vm.create_vcpu(6)
    with pytest.raises(KvmError, match="/dev/kvm is closed"):
        kvm.create_vm()


@pytest.mark.kvm
def test_vcpu_id_twice_says_to_keep_the_first() -> None:
    with KVM() as kvm, kvm.create_vm() as vm:
        vm.create_vcpu(1).close()
        with pytest.raises(KvmError, match=r"KVM_CREATE_VCPU .*EEXIST .*created once") as caught:
            vm.create_vcpu(1)
    assert (caught.value.ioctl, caught.value.errno) == ("KVM_CREATE_VCPU", errno.EEXIST)


@pytest.mark.kvm
def test_capabilities_have_the_kernels_names() -> None:
    with KVM() as kvm:
        capabilities = kvm.capabilities()
        assert kvm.api_version == 12
        assert capabilities["KVM_CAP_USER_MEMORY"] == 1
        assert kvm.check_extension("KVM_CAP_USER_MEMORY") == 1
        with pytest.raises(KvmError, match="KVM_CAP_FLYING is not in the kernel headers"):
            kvm.check_extension("KVM_CAP_FLYING")


@pytest.mark.kvm
def test_absent_capability_is_named() -> None:
    with (
        KVM() as kvm,
        kvm.create_vm() as vm,
        pytest.raises(KvmError, match="does not have KVM_CAP_S390_UCONTROL"),
    ):
        vm.enable_cap("KVM_CAP_S390_UCONTROL")


@pytest.mark.kvm
def test_irqchip_after_the_first_vcpu_is_explained() -> None:
    with X86KVM() as kvm, kvm.create_vm() as vm:
        vm.create_vcpu(0)
        with pytest.raises(KvmError, match="before the first vCPU"):
            vm.create_irqchip()


SPIN = b"\xeb\xfe"  # jmp $


@pytest.mark.kvm
def test_running_vcpu_is_neither_closed_nor_run_twice() -> None:
    with real_mode_guest(SPIN) as guest:
        started = threading.Event()

        def run() -> Exit:
            started.set()
            return guest.vcpu.run()

        result = in_thread(run)
        assert started.wait(5)
        while not guest.vcpu.running:
            pass
        with pytest.raises(KvmError, match="vCPU 0 runs in another thread: kick it"):
            guest.vcpu.close()
        with pytest.raises(KvmError, match="vCPU 0 runs in another thread already"):
            guest.vcpu.run()
        guest.vcpu.kick()
        assert isinstance(result(5), Interrupted)
