"""A guest that says how it was entered, and the VM that it runs in."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cpufw.kvm import IoExit, MmioExit, OutputReady
from cpufw_x86.boot import GuestImage
from cpufw_x86.kvm import X86KVM
from cpufw_x86.memory import GuestRam
from cpufw_x86.memory_map import (
    IDENTITY_MAP_ADDRESS,
    MIB,
    RSDP_ADDRESS,
    TSS_ADDRESS,
    MemoryMap,
)

REPORT = 0x30_0000
EXIT_PORT = 0xF4
REGISTERS = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
MEMORY = 32 * MIB
RSDP = b"RSD PTR " + bytes(range(28))


def report_code(wide: bool) -> bytes:
    """Store the general registers, CR0, CS, DS, ES and SS at REPORT, and leave by the exit port."""

    def store(register: int, place: int) -> bytes:  # mov [REPORT + place], register
        form = bytes([0x04 | register << 3, 0x25]) if wide else bytes([0x05 | register << 3])
        return b"\x89" + form + struct.pack("<I", REPORT + place)

    code = b"".join(store(number, number * 4) for number in range(8))
    code += bytes.fromhex("0f20c0") + store(0, 32)  # mov eax, cr0 (rax in long mode)
    for place, segment in enumerate((1, 3, 0, 2)):  # cs, ds, es, ss
        code += bytes([0x8C, 0xC0 | segment << 3]) + store(0, 36 + 4 * place)
    return code + bytes([0xB0, 1, 0xE6, EXIT_PORT, 0xF4, 0xEB, 0xFD])


@dataclass
class Entered:
    """What `report_code` saw, and the memory it saw."""

    registers: dict[str, int]
    cr0: int
    segments: dict[str, int]
    rflags: int
    long_mode: bool
    memory: bytes

    def word(self, address: int, size: int = 4) -> int:
        return int.from_bytes(self.memory[address : address + size], "little")

    def string(self, address: int) -> str:
        return self.memory[address : address + 4096].split(b"\0")[0].decode()


def run_to_exit_port(image: GuestImage, *, acpi: bool = False, starts: int = 1) -> Entered:
    """Boot `image` as often as `starts` says, in the same memory, until it writes to EXIT_PORT."""
    memory_map = MemoryMap(MEMORY, 4096 if acpi else 0, image.firmware_size)
    with X86KVM() as kvm, kvm.create_vm() as vm:
        vm.set_identity_map_addr(IDENTITY_MAP_ADDRESS)
        vm.set_tss_addr(TSS_ADDRESS)
        vm.create_irqchip()
        ram = GuestRam(vm, MEMORY)
        vcpu = vm.create_vcpu(0)
        vcpu.set_cpuid2(kvm.get_supported_cpuid())
        if acpi:
            ram.write(RSDP_ADDRESS, RSDP)
        for _ in range(starts):
            image.place(ram, memory_map, RSDP_ADDRESS if acpi else None)
            image.enter(vcpu)
            rflags = vcpu.get_regs().rflags
            long_mode = bool(vcpu.get_sregs().efer & 1 << 10)
            while True:
                exit = vcpu.run()
                if isinstance(exit, IoExit) and exit.port == EXIT_PORT:
                    break
                assert isinstance(exit, IoExit | MmioExit | OutputReady), exit
        words = struct.unpack("<13I", ram.read(REPORT, 52))
        return Entered(
            dict(zip(REGISTERS, words, strict=False)),
            words[8],
            dict(zip(("cs", "ds", "es", "ss"), words[9:], strict=True)),
            rflags,
            long_mode,
            ram.read(0, MEMORY),
        )
