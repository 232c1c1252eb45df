"""What a guest meets at its entry under each protocol, on KVM."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from boot_guest import EXIT_PORT, MEMORY, REPORT, RSDP, Entered, report_code, run_to_exit_port
from boot_images import LINUX_NOTE, LOAD, bzimage, elf, multiboot, multiboot2, xen_note
from guest_programs import cpufw

from cpufw.kvm import IoExit, MmioExit
from cpufw_x86.boot import load_guest
from cpufw_x86.kvm import X86KVM
from cpufw_x86.memory import GuestRam
from cpufw_x86.memory_map import (
    BOOT_TABLES,
    IDENTITY_MAP_ADDRESS,
    MIB,
    RSDP_ADDRESS,
    TSS_ADDRESS,
    MemoryMap,
)

pytestmark = pytest.mark.kvm

BASE = 0x10_0000
CR0_PE, CR0_PG = 1 << 0, 1 << 31
DEBUG_CONSOLE = 0x402
BOOT_SEGMENTS = {"cs": 0x10, "ds": 0x18, "es": 0x18, "ss": 0x18}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "guest"


def check_mode(entered: Entered, *, long: bool) -> None:
    assert entered.cr0 & CR0_PE
    assert bool(entered.cr0 & CR0_PG) == entered.long_mode == long
    assert entered.segments == BOOT_SEGMENTS
    assert entered.rflags == 2


def kernel64() -> bytes:
    """A bzImage with both entries; what the 32-bit one does can be told from the other."""
    return bzimage(report_code(wide=False).ljust(0x200, b"\xf4") + report_code(wide=True))


@pytest.mark.parametrize(
    ("content", "protocol", "long"),
    [
        (kernel64(), "linux", True),
        (kernel64(), "linux32", False),
        (
            elf((LOAD, BASE, report_code(wide=True), 4096), entry=BASE, notes=[LINUX_NOTE]),
            "linux",
            True,
        ),
        (
            elf((LOAD, BASE, report_code(wide=False), 4096), bits=32, notes=[LINUX_NOTE]),
            "linux32",
            False,
        ),
    ],
    ids=["bzImage", "bzImage-32", "vmlinux", "vmlinux-32"],
)
def test_linux_finds_its_zero_page_in_esi(
    content: bytes, protocol: str, long: bool, image: Path, tmp_path: Path
) -> None:
    image.write_bytes(content)
    disk = tmp_path / "disk"
    disk.write_bytes(b"the initial RAM disk")
    guest = load_guest(image, protocol=protocol, initrd=str(disk), append="root=/dev/ram0")
    entered = run_to_exit_port(guest, acpi=True)
    check_mode(entered, long=long)
    assert [entered.registers[name] for name in ("ebx", "ebp", "edi")] == [0, 0, 0]
    page = entered.registers["esi"]
    assert entered.string(entered.word(page + 0x228)) == "root=/dev/ram0"
    address, size = entered.word(page + 0x218), entered.word(page + 0x21C)
    assert entered.memory[address : address + size] == disk.read_bytes()
    assert entered.word(page + 0x70, 8) == RSDP_ADDRESS


def test_pvh_finds_its_start_info_in_ebx(image: Path, tmp_path: Path) -> None:
    code = report_code(wide=False)
    # The 64-bit entry of the header is another; PVH is 32-bit all the same.
    content = elf((LOAD, BASE, b"\xf4" * 16 + code, 4096), entry=BASE, notes=[xen_note(BASE + 16)])
    image.write_bytes(content)
    disk = tmp_path / "disk"
    disk.write_bytes(b"a module")
    entered = run_to_exit_port(load_guest(image, initrd=str(disk), append="quiet"), acpi=True)
    check_mode(entered, long=False)
    info = entered.registers["ebx"]
    magic, version, flags, modules, *rest = struct.unpack(
        "<IIIIQQQQII", entered.memory[info : info + 56]
    )
    assert (magic, version, flags, modules) == (0x336EC578, 1, 0, 1)
    module_list, line, rsdp, ranges_at, count, _ = rest
    address, size = struct.unpack_from("<QQ", entered.memory, module_list)
    assert entered.memory[address : address + size] == b"a module"
    assert entered.string(line) == "quiet"
    assert rsdp == RSDP_ADDRESS
    ranges = struct.iter_unpack("<QQII", entered.memory[ranges_at : ranges_at + 24 * count])
    assert [each[:3] for each in ranges] == [
        (each.address, each.size, each.type) for each in MemoryMap(MEMORY, 4096).e820()
    ]


@pytest.mark.parametrize(
    ("header", "eax"),
    [(multiboot(0), 0x2BADB002), (multiboot2(), 0x36D76289)],
    ids=["multiboot", "multiboot2"],
)
@pytest.mark.parametrize("bits", [32, 64])
def test_multiboot_enters_in_protected_mode_whatever_the_elf_class(
    header: bytes, eax: int, bits: int, image: Path, tmp_path: Path
) -> None:
    environ = tmp_path / "environ"
    environ.write_text("NR_CPUS=4\n")
    # The note segment's header comes before: Multiboot2 headers are on a multiple of 8 bytes.
    pad = bytes(-(84 if bits == 32 else 120) % 8)
    code = pad + header.ljust(64, b"\0")
    content = elf(
        (LOAD, BASE, code + report_code(wide=False), 4096), bits=bits, entry=BASE + len(code)
    )
    image.write_bytes(content)
    entered = run_to_exit_port(load_guest(image, initrd=str(environ), append="1 2"), acpi=True)
    check_mode(entered, long=False)
    assert entered.registers["eax"] == eax
    info = entered.registers["ebx"]
    if eax == 0x2BADB002:
        assert entered.string(entered.word(info + 16)) == f"{image} 1 2"
        begin, end, line, _ = struct.unpack_from("<4I", entered.memory, entered.word(info + 24))
        assert entered.memory[begin:end] == b"NR_CPUS=4\n"
        assert entered.string(line) == str(environ)
    else:
        assert RSDP in entered.memory[info : info + entered.word(info)]


def test_the_processor_is_entered_the_same_again_after_a_reset(image: Path) -> None:
    # The second time in the memory and with the registers that the first left behind.
    image.write_bytes(kernel64())
    entered = run_to_exit_port(load_guest(image), starts=2)
    check_mode(entered, long=True)
    assert entered.registers["esi"] == run_to_exit_port(load_guest(image)).registers["esi"]
    assert entered.registers["edi"] == 0


def test_long_mode_maps_4_gib_one_to_one(image: Path) -> None:
    # mov eax, [0xfee00030] (the local APIC's version) through the last of the page directories
    code = bytes.fromhex("a13000e0fe00000000") + bytes([0x89, 0x04, 0x25])
    code += struct.pack("<I", REPORT) + bytes([0xE6, EXIT_PORT])
    image.write_bytes(elf((LOAD, BASE, code, 4096), entry=BASE))
    entered = run_to_exit_port(load_guest(image))
    assert entered.word(REPORT) & 0xFF == 0x14
    assert BOOT_TABLES.stop == 0x9_7000


def firmware(code: bytes, size: int = 64 << 10) -> bytes:
    """Firmware whose last bytes jump to `code`, which lies 0x400 before its end."""
    content = bytearray(b"\xcc" * size)
    content[-0x400 : -0x400 + len(code)] = code
    content[-16:-11] = bytes.fromhex("ea 00fc 00f0")  # jmp f000:fc00, below 1 MiB
    return bytes(content)


def test_firmware_begins_at_the_reset_vector_and_cannot_be_overwritten(image: Path) -> None:
    gdt = 0xFE00  # in the last page, as an offset from f000:0000
    code = bytes.fromhex("2e 66 0f 01 16") + struct.pack("<H", gdt)  # lgdt cs:[gdt]
    code += bytes.fromhex("0f20c0 6683c801 0f22c0")  # mov eax, cr0; or eax, 1; mov cr0, eax
    flat = 0xF_FC00 + len(code) + 8
    code += b"\x66\xea" + struct.pack("<IH", flat, 0x08)  # jmp far 8:next
    code += bytes.fromhex("66b81000 8ed8")  # mov ax, 0x10; mov ds, ax
    # mov byte [0xffff0000], 0x55; mov al, [0xffff0000]; mov [REPORT], al
    code += bytes.fromhex("c6050000ffff55 a00000ffff a2") + struct.pack("<I", REPORT)
    # The same below 1 MiB, where it is RAM.
    code += bytes.fromhex("c60500000f0055 a000000f00 a2") + struct.pack("<I", REPORT + 1)
    code += bytes([0xE6, EXIT_PORT])
    content = bytearray(firmware(code))
    table = struct.pack("<HI2xQQ", 23, 0xF_0000 + gdt, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
    content[gdt : gdt + len(table)] = table
    image.write_bytes(content)
    guest = load_guest(image, protocol="firmware")
    assert guest.firmware_size == len(content)
    entered = run_to_exit_port(guest, starts=2)
    assert entered.memory[REPORT : REPORT + 2] == b"\xcc\x55"


def said_by_firmware(path: Path, until: bytes) -> bytes:
    """What it writes to the debug console until it has said `until`."""
    said = b""
    guest = load_guest(path, protocol="firmware")
    with X86KVM() as kvm, kvm.create_vm() as vm:
        vm.set_identity_map_addr(IDENTITY_MAP_ADDRESS)
        vm.set_tss_addr(TSS_ADDRESS)
        vm.create_irqchip()
        vm.create_pit2()
        ram = GuestRam(vm, 64 * MIB)
        vcpu = vm.create_vcpu(0)
        vcpu.set_cpuid2(kvm.get_supported_cpuid())
        guest.place(ram, MemoryMap(64 * MIB, 0, guest.firmware_size), None)
        guest.enter(vcpu)
        for _ in range(10_000):
            exit = vcpu.run()
            assert isinstance(exit, IoExit | MmioExit), exit
            if isinstance(exit, IoExit) and exit.port == DEBUG_CONSOLE:
                if exit.is_in:
                    exit.value = 0xE9  # a debug console is there
                else:
                    said += exit.data
            if until in said:
                break
    return said


@pytest.mark.parametrize("name", ["bios.bin", "bios-256k.bin"])
def test_seabios_prints(name: str) -> None:
    path = Path("/usr/share/seabios") / name
    if not path.exists():
        pytest.skip("needs SeaBIOS (Debian's package seabios)")
    assert b"SeaBIOS (version " in said_by_firmware(path, b"Running on KVM")


# --- the same by the command line ---------------------------------------------------------


def test_a_multiboot_kernel_reads_its_environ_module_and_its_arguments(
    image: Path, tmp_path: Path
) -> None:
    environ = tmp_path / "environ"
    environ.write_bytes(b"\x05=1\n")
    # The first byte of the first module, plus the last of the command line.
    code = bytes.fromhex("8b4318 8b00 8a08 8b4310 40 803800 75fa 8a40ff 00c8 e6f4 f4 ebfd")
    content = multiboot(0) + code
    image.write_bytes(elf((LOAD, BASE, content, 4096), bits=32, entry=BASE + 32))
    done = cpufw("run", "--kernel", image, "--initrd", f"{environ} x", "--append", "a \x06")
    assert done.returncode == (5 + 6) << 1 | 1, done.stderr


def test_firmware_runs_without_a_kernel(image: Path) -> None:
    image.write_bytes(firmware(bytes([0xB0, 7, 0xE6, EXIT_PORT, 0xF4, 0xEB, 0xFD])))
    assert cpufw("run", "--firmware", image).returncode == 7 << 1 | 1


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--protocol", "multiboot"], 1, "no Multiboot header in its first 8 KiB"),
        (["--protocol", "grub"], 1, "boot protocol 'grub' is not known"),
        (["--append", "quiet"], 2, "booted as elf, which takes no command line"),
        (["--initrd", "/dev/null"], 2, "booted as elf, which takes no initrd"),
    ],
)
def test_what_cannot_be_booted_is_said_in_one_line(
    options: list[str], status: int, says: str, image: Path
) -> None:
    image.write_bytes(elf((LOAD, BASE, b"\xf4", 1)))
    done = cpufw("run", *options, "--kernel", image)
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr.splitlines()[-1]
