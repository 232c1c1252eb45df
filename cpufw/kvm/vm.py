"""A VM: memory, vCPUs, interrupts and the devices its run loop serves."""

from __future__ import annotations

import errno

from cpufw.errors import KvmError

from .handle import Handle, constant
from .memory import GuestMemory
from .native import ffi, lib
from .uart import Uart16550
from .vcpu import VCPU

TYPE_CHECKING = False  # importing typing would take longer than the whole package
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cpufw.core.statistics import Statistic

    from .stats import StatsFile
    from .system import KVM


class VM(Handle):
    """A VM made by `KVM.create_vm`. An architecture's own class overrides `vcpu_class`."""

    vcpu_class: type[VCPU] = VCPU

    def __init__(self, kvm: KVM, fd: int) -> None:
        super().__init__(fd, "VM")
        self.kvm = kvm
        self.vcpu_mmap_size = kvm.vcpu_mmap_size
        self.memory: dict[int, GuestMemory] = {}
        """What `add_memory` put in each slot."""
        self._places: dict[int, tuple[int, int]] = {}
        self.vcpus: dict[int, VCPU] = {}
        """Every vCPU created, by id."""
        self._bus = ffi.new("struct cpufw_bus *")
        self._uarts: dict[int, Uart16550] = {}
        self._statistics: dict[Handle, StatsFile] = {}

    def check_extension(self, capability: int | str) -> int:
        """What this VM has of a capability; 0: not there (KVM_CHECK_EXTENSION)."""
        return self.ioctl("KVM_CHECK_EXTENSION", lib.KVM_CHECK_EXTENSION, constant(capability))

    def enable_cap(self, capability: int | str, *arguments: int, flags: int = 0) -> None:
        """Turn a capability on for this VM (KVM_ENABLE_CAP); KvmError names it if absent."""
        number = constant(capability)
        if not self.check_extension(number):
            raise KvmError(f"this KVM does not have {capability}", "KVM_ENABLE_CAP")
        request = ffi.new(
            "struct kvm_enable_cap *", {"cap": number, "flags": flags, "args": arguments}
        )
        self.ioctl("KVM_ENABLE_CAP", lib.KVM_ENABLE_CAP, request)

    # Memory

    def set_user_memory_region(
        self, slot: int, guest_phys_addr: int, size: int, host_address: int, flags: int = 0
    ) -> None:
        """Map host memory into the guest; size 0 removes the slot (KVM_SET_USER_MEMORY_REGION)."""
        region = ffi.new(
            "struct kvm_userspace_memory_region *",
            {
                "slot": slot,
                "flags": flags,
                "guest_phys_addr": guest_phys_addr,
                "memory_size": size,
                "userspace_addr": host_address,
            },
        )
        self.ioctl("KVM_SET_USER_MEMORY_REGION", lib.KVM_SET_USER_MEMORY_REGION, region)

    def add_memory(
        self, slot: int, guest_phys_addr: int, memory: GuestMemory, readonly: bool = False
    ) -> None:
        """Put `memory` into the guest; the VM keeps it alive. Writes to readonly memory exit."""
        if slot in self.memory:
            raise KvmError(f"memory slot {slot} is taken: remove_memory({slot}) first")
        flags = lib.KVM_MEM_READONLY if readonly else 0
        self.set_user_memory_region(slot, guest_phys_addr, memory.size, memory.host_address, flags)
        self.memory[slot] = memory
        self._places[slot] = (guest_phys_addr, flags)

    def memory_blocks(self) -> list[tuple[int, int, GuestMemory]]:
        """Slot number, guest-physical address and memory of each slot, by address."""
        blocks = [(slot, self._places[slot][0], memory) for slot, memory in self.memory.items()]
        return sorted(blocks, key=lambda block: block[1])

    def log_dirty_pages(self, slot: int, on: bool) -> None:
        """Begin to note which pages of `slot` the guest and cpufw write, or stop it.

        (KVM_SET_USER_MEMORY_REGION with KVM_MEM_LOG_DIRTY_PAGES)
        """
        memory, (address, flags) = self.memory[slot], self._places[slot]
        logging = lib.KVM_MEM_LOG_DIRTY_PAGES if on else 0
        self.set_user_memory_region(
            slot, address, memory.size, memory.host_address, flags | logging
        )
        memory.log_writes(on)

    def get_dirty_log(self, slot: int) -> bytes:
        """The bitmap of the pages written since the last call (KVM_GET_DIRTY_LOG).

        Bit i of byte i / 8, least significant first, is page i of 4 KiB.
        """
        memory = self.memory[slot]
        pages = memory.size // lib.CPUFW_PAGE
        bitmap = ffi.new("uint64_t[]", (pages + 63) // 64)
        request = ffi.new("struct kvm_dirty_log *", {"slot": slot, "dirty_bitmap": bitmap})
        self.ioctl("KVM_GET_DIRTY_LOG", lib.KVM_GET_DIRTY_LOG, request)
        length = (pages + 7) // 8
        dirty = int.from_bytes(ffi.buffer(bitmap)[:length], "little")
        return (dirty | int.from_bytes(memory.take_written(), "little")).to_bytes(length, "little")

    def remove_memory(self, slot: int) -> None:
        """Take the memory of `slot` away from the guest; what was in it stays."""
        if slot not in self.memory:
            raise KvmError(f"memory slot {slot} is empty")
        self.set_user_memory_region(slot, 0, 0, 0)
        del self.memory[slot], self._places[slot]

    # vCPUs

    def create_vcpu(self, id: int) -> VCPU:
        """Create the vCPU `id`, once in the VM's life (KVM_CREATE_VCPU)."""
        fd = self.ioctl("KVM_CREATE_VCPU", lib.KVM_CREATE_VCPU, id)
        vcpu = self.vcpu_class(self, id, fd)
        self.vcpus[id] = vcpu
        return vcpu

    def statistics(
        self,
        vcpu: VCPU | None = None,
        held: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> list[Statistic]:
        """What KVM counts of this VM, or of its vCPU; nothing without KVM_CAP_BINARY_STATS_FD.

        `held` makes a block in which the vCPU does not run; it is needed once for each.
        """
        counted = self if vcpu is None else vcpu
        if counted not in self._statistics:
            if not self.check_extension("KVM_CAP_BINARY_STATS_FD"):
                return []
            from contextlib import nullcontext

            from .stats import StatsFile

            with nullcontext() if held is None else held():
                self._statistics[counted] = StatsFile(counted)
        return self._statistics[counted].read()

    # Interrupts and events

    def irq_line(self, irq: int, level: int) -> None:
        """Set the level of an interrupt line of the in-kernel controller (KVM_IRQ_LINE)."""
        line = ffi.new("struct kvm_irq_level *", {"irq": irq, "level": level})
        self.ioctl("KVM_IRQ_LINE", lib.KVM_IRQ_LINE, line)

    def signal_msi(self, address: int, data: int) -> bool:
        """Deliver an MSI; False when the guest blocked it (KVM_SIGNAL_MSI)."""
        msi = ffi.new(
            "struct kvm_msi *",
            {"address_lo": address & 0xFFFF_FFFF, "address_hi": address >> 32, "data": data},
        )
        return self.ioctl("KVM_SIGNAL_MSI", lib.KVM_SIGNAL_MSI, msi) > 0

    def irqfd(self, fd: int, gsi: int, *, resample_fd: int = -1, deassign: bool = False) -> None:
        """Raise interrupt `gsi` whenever the eventfd is written to (KVM_IRQFD).

        With `resample_fd` the line is level-triggered: it stays up until the guest's EOI, which
        is told to that eventfd.
        """
        flags = lib.KVM_IRQFD_FLAG_DEASSIGN if deassign else 0
        fields = {"fd": fd, "gsi": gsi}
        if resample_fd >= 0:
            flags |= lib.KVM_IRQFD_FLAG_RESAMPLE
            fields["resamplefd"] = resample_fd
        request = ffi.new("struct kvm_irqfd *", {**fields, "flags": flags})
        self.ioctl("KVM_IRQFD", lib.KVM_IRQFD, request)

    def ioeventfd(
        self,
        fd: int,
        address: int,
        length: int,
        *,
        pio: bool = False,
        value: int | None = None,
        deassign: bool = False,
    ) -> None:
        """Write to the eventfd, without an exit, when the guest writes there (KVM_IOEVENTFD).

        `length` in bytes, 0 for any; `value` limits it to writes of exactly that.
        """
        flags = lib.KVM_IOEVENTFD_FLAG_PIO if pio else 0
        if value is not None:
            flags |= lib.KVM_IOEVENTFD_FLAG_DATAMATCH
        if deassign:
            flags |= lib.KVM_IOEVENTFD_FLAG_DEASSIGN
        request = ffi.new(
            "struct kvm_ioeventfd *",
            {"datamatch": value or 0, "addr": address, "len": length, "fd": fd, "flags": flags},
        )
        self.ioctl("KVM_IOEVENTFD", lib.KVM_IOEVENTFD, request)

    # Devices in the run loop

    def add_uart(self, base: int, *, mmio: bool = False) -> Uart16550:
        """A 16550A at eight ports (or bytes) from `base`, served without leaving the C loop."""
        uart = Uart16550()
        space = lib.CPUFW_SPACE_MMIO if mmio else lib.CPUFW_SPACE_PIO
        number = lib.cpufw_uart_attach(uart._device, self._bus, space, base)
        self._check_region(number, f"UART at {base:#x}")
        self._uarts[number] = uart
        return uart

    def add_port_device(self, ports: range, ops: int, device: int) -> None:
        """Serve `ports` in the C loop with an architecture's own device.

        `ops` is the address of its `struct cpufw_device_ops` (run.h), `device` that of its state;
        both must stay as long as the VM. Raises KvmError.
        """
        number = lib.cpufw_bus_add(
            self._bus,
            lib.CPUFW_SPACE_PIO,
            ports.start,
            len(ports),
            ffi.cast("struct cpufw_device_ops *", ops),
            ffi.cast("void *", device),
        )
        self._check_region(number, f"device at port {ports.start:#x}")

    @staticmethod
    def _check_region(number: int, name: str) -> None:
        if number < 0:
            reason = (
                f"the VM has {lib.CPUFW_MAX_REGIONS} devices already"
                if number == -errno.ENOSPC
                else "another device is there"
            )
            raise KvmError(f"no {name}: {reason}")

    def close(self) -> None:
        """Close the vCPUs and the VM; does nothing the second time. The memory stays open."""
        for file in self._statistics.values():
            file.close()
        for vcpu in self.vcpus.values():
            vcpu.close()
        super().close()
