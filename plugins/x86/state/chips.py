"""The state of what is neither vCPU nor device: interrupt controllers, PIT, clock, firmware."""

from __future__ import annotations

from itertools import accumulate
from typing import ClassVar

from cpufw.core.vmstate import VMState, array, blob, text, u32, u64
from cpufw.errors import StateError
from cpufw_x86.devices import FwCfg
from cpufw_x86.kvm import IOAPIC, PIC_MASTER, PIC_SLAVE, X86VM, ClockData
from cpufw_x86.kvm.native import ffi
from cpufw_x86.memory import GuestRam
from cpufw_x86.memory_map import LARGEST_FIRMWARE

_MOST_FILES, _MOST_FILE_BYTES = 0x4000, 40 << 20
_CHIP_BYTES: int = ffi.sizeof("struct kvm_irqchip")


class IrqchipState:
    """PICs and I/O APIC in the kernel; the local APICs belong to their vCPUs."""

    vmstate: ClassVar[VMState] = VMState(
        "irqchip",
        1,
        blob("pic_master", _CHIP_BYTES),
        blob("pic_slave", _CHIP_BYTES),
        blob("ioapic", _CHIP_BYTES),
        pre_save="read",
        post_load="write",
    )

    pic_master = pic_slave = ioapic = b""

    def __init__(self, vm: X86VM) -> None:
        self._vm = vm

    def read(self) -> None:
        """Take it from the kernel."""
        self.pic_master = self._vm.get_irqchip(PIC_MASTER)
        self.pic_slave = self._vm.get_irqchip(PIC_SLAVE)
        self.ioapic = self._vm.get_irqchip(IOAPIC)

    def write(self) -> None:
        """Give it to the kernel."""
        for state in (self.pic_master, self.pic_slave, self.ioapic):
            self._vm.set_irqchip(state)


class PitState:
    """The 8254 timer in the kernel."""

    vmstate: ClassVar[VMState] = VMState(
        "pit",
        1,
        blob("channels", ffi.sizeof("struct kvm_pit_state2")),
        pre_save="read",
        post_load="write",
    )

    channels = b""

    def __init__(self, vm: X86VM) -> None:
        self._vm = vm

    def read(self) -> None:
        """Take it from the kernel."""
        self.channels = self._vm.get_pit2()

    def write(self) -> None:
        """Give it to the kernel."""
        self._vm.set_pit2(self.channels)


class RomState:
    """A firmware image."""

    vmstate: ClassVar[VMState] = VMState(
        "rom", 1, blob("content", most=LARGEST_FIRMWARE), pre_save="read", post_load="write"
    )

    content = b""

    def __init__(self, ram: GuestRam) -> None:
        self._ram = ram

    def read(self) -> None:
        """Take it from memory."""
        self.content = self._ram.rom

    def write(self) -> None:
        """Put it there."""
        if self.content:
            self._ram.set_rom(self.content)


class FwCfgFilesState:
    """What fw_cfg has to offer: the files that it comes from may be gone."""

    vmstate: ClassVar[VMState] = VMState(
        "fw-cfg-files",
        1,
        array(text, "names", most=_MOST_FILES),
        array(u32, "sizes", most=_MOST_FILES),
        blob("contents", most=_MOST_FILE_BYTES),
        pre_save="read",
        post_load="write",
    )

    contents = b""

    def __init__(self, fw_cfg: FwCfg) -> None:
        self._fw_cfg = fw_cfg
        self.names: list[str] = []
        self.sizes: list[int] = []

    def read(self) -> None:
        """Take them from the device."""
        files = self._fw_cfg.files
        self.names, self.sizes = list(files), [len(data) for data in files.values()]
        self.contents = b"".join(files.values())

    def write(self) -> None:
        """Give them to the device."""
        ends = list(accumulate(self.sizes))
        if len(self.sizes) != len(self.names) or sum(self.sizes) != len(self.contents):
            raise StateError("state of fw-cfg-files: its sizes are not those of its contents")
        self._fw_cfg.files = {
            name: self.contents[end - size : end]
            for name, size, end in zip(self.names, self.sizes, ends, strict=True)
        }


class ClockState:
    """The guest's kvmclock in ns; it stands still from when it was read until `write`."""

    vmstate: ClassVar[VMState] = VMState("kvmclock", 1, u64("clock"))

    def __init__(self, clock: int = 0) -> None:
        self.clock = clock

    def write(self, vm: X86VM) -> None:
        """Let the guest's clock go on from here."""
        vm.set_clock(ClockData(clock=self.clock))
