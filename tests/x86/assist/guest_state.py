"""A CPU without KVM under the assisted instructions: plain memory instead of a run page."""

from __future__ import annotations

from collections.abc import Mapping

from native_cpu import LOADED_FLAGS, SCRATCH_SIZE, Outcome

from cpufw.kvm import GuestMemory
from cpufw_x86.assist.cpu_state import CpuState
from cpufw_x86.assist.decode import decode
from cpufw_x86.assist.instructions import assisted
from cpufw_x86.assist.physical import PhysicalMemory
from cpufw_x86.assist.table import execute
from cpufw_x86.assist.vector_state import VectorState
from cpufw_x86.cpuid import CPUID_WORDS
from cpufw_x86.kvm import Regs, Sregs

EVERY_FEATURE = dict.fromkeys(CPUID_WORDS, (1 << 32) - 1)


class _OneBlock:
    """What PhysicalMemory takes of GuestRam."""

    def __init__(self, address: int, memory: GuestMemory) -> None:
        self.blocks = ((address, memory),)


class GuestState:
    """Registers as given; memory is `scratch` at `address`, without paging, in 64-bit mode."""

    def __init__(
        self,
        registers: Mapping[str, int],
        flags: int,
        xsave: bytes,
        scratch: bytes,
        address: int,
        xcr0: int,
        words: Mapping[str, int] = EVERY_FEATURE,
    ) -> None:
        self.regs = Regs(**registers, rflags=flags & LOADED_FLAGS | 2)
        self.sregs = Sregs()
        self.sregs.cs.l = 1
        self.sregs.cr0 = 1
        self.sregs.cr4 = 1 << 9 | 1 << 18  # OSFXSR, OSXSAVE
        self.ram = GuestMemory(SCRATCH_SIZE)
        self.ram.write(0, scratch)
        self._xsave, self._xcr0 = bytearray(xsave), xcr0
        memory = PhysicalMemory(_OneBlock(address, self.ram))  # type: ignore[arg-type]
        self.vectors = VectorState(self)
        self.cpu = CpuState(self.regs, self.sregs, memory, self.vectors, words, self)

    def run(self, code: bytes) -> Outcome:
        """Finish the one instruction `code`."""
        instruction = decode(code, 64)
        assert instruction is not None
        assert instruction.length == len(code), "decoded with another length"
        self.cpu.begin()
        how = assisted(instruction)
        assert how is not None, "nobody finishes it"
        execute(self.cpu, instruction, how)
        self.vectors.flush()
        registers = {
            name: getattr(self.regs, name) for name in dir(self.regs) if name.startswith("r")
        }
        flags = registers.pop("rflags") & LOADED_FLAGS
        for name in ("rip", "rsp"):
            del registers[name]
        return Outcome(registers, flags, bytes(self._xsave), self.ram.read(0, SCRATCH_SIZE))

    # Platform and Backing

    def get_msr(self, index: int) -> int:  # noqa: ARG002
        return 0

    def get_xcr0(self) -> int:
        return self._xcr0

    def set_xcr0(self, value: int) -> None:
        self._xcr0 = value

    def flush_tlb(self) -> None:
        pass

    def get_xsave(self) -> bytearray:
        return bytearray(self._xsave)

    def set_xsave(self, area: bytearray) -> None:
        self._xsave = bytearray(area)
