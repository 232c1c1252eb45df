"""An x86 VM: interrupt controllers, timer and clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cpufw.errors import KvmError
from cpufw.kvm import VM

from .native import ffi, lib
from .structs import ClockData
from .vcpu import X86VCPU

PIC_MASTER: int = lib.KVM_IRQCHIP_PIC_MASTER
PIC_SLAVE: int = lib.KVM_IRQCHIP_PIC_SLAVE
IOAPIC: int = lib.KVM_IRQCHIP_IOAPIC


class PinRoute(NamedTuple):
    """GSI `gsi` is a pin of PIC_MASTER, PIC_SLAVE or IOAPIC in the kernel."""

    gsi: int
    chip: int
    pin: int


class MsiRoute(NamedTuple):
    """GSI `gsi` is an MSI."""

    gsi: int
    address: int
    data: int


GsiRoute = PinRoute | MsiRoute


class X86VM(VM):
    """A VM made by `X86KVM.create_vm`."""

    vcpu_class = X86VCPU
    has_lapics = False
    """Whether local APICs are in the kernel (`create_irqchip` or `create_split_irqchip`)."""
    _msr_exit_reasons = 0

    def create_vcpu(self, id: int) -> X86VCPU:
        """Create the vCPU `id`, once in the VM's life (KVM_CREATE_VCPU)."""
        vcpu = super().create_vcpu(id)
        assert isinstance(vcpu, X86VCPU)
        if self.has_lapics:
            # Without this the INIT that starts a vCPU added to a running guest can be lost.
            vcpu.initial_lapic = vcpu.get_lapic()
            vcpu.set_lapic(vcpu.initial_lapic)
        return vcpu

    def set_tss_addr(self, address: int) -> None:
        """Three guest-physical pages that VMX needs for real mode (KVM_SET_TSS_ADDR).

        They must lie below 4 GiB, in no memory slot.
        """
        self.ioctl("KVM_SET_TSS_ADDR", lib.KVM_SET_TSS_ADDR, address)

    def set_identity_map_addr(self, address: int) -> None:
        """One page more of the same, before the first vCPU (KVM_SET_IDENTITY_MAP_ADDR)."""
        self.ioctl(
            "KVM_SET_IDENTITY_MAP_ADDR",
            lib.KVM_SET_IDENTITY_MAP_ADDR,
            ffi.new("__u64 *", address),
        )

    def set_boot_cpu_id(self, id: int) -> None:
        """The vCPU that starts by itself, by default 0 (KVM_SET_BOOT_CPU_ID)."""
        self.ioctl("KVM_SET_BOOT_CPU_ID", lib.KVM_SET_BOOT_CPU_ID, id)

    def create_irqchip(self) -> None:
        """PICs, IOAPIC and local APICs in the kernel, before the first vCPU.

        (KVM_CREATE_IRQCHIP)
        """
        self.ioctl("KVM_CREATE_IRQCHIP", lib.KVM_CREATE_IRQCHIP)
        self.has_lapics = True

    def create_split_irqchip(self, ioapic_pins: int = 24) -> None:
        """Only the local APICs in the kernel, before the first vCPU (KVM_CAP_SPLIT_IRQCHIP)."""
        self.enable_cap("KVM_CAP_SPLIT_IRQCHIP", ioapic_pins)
        self.has_lapics = True

    def enable_x2apic_ids(self) -> None:
        """APIC ids of 32 bits in MSIs and in `get_lapic`, and 255 is one (KVM_CAP_X2APIC_API)."""
        quirk = lib.KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK
        self.enable_cap("KVM_CAP_X2APIC_API", lib.KVM_X2APIC_API_USE_32BIT_IDS | quirk)

    def limit_vcpu_ids(self, count: int) -> None:
        """Promise that vCPU ids stay below `count`, before the first vCPU (KVM_CAP_MAX_VCPU_ID).

        KVM then keeps smaller tables. Raises KvmError where the kernel is older than Linux 6.0.
        """
        self.enable_cap("KVM_CAP_MAX_VCPU_ID", count)

    def set_gsi_routing(self, routes: Sequence[GsiRoute]) -> None:
        """Where every GSI leads from now on; one may lead to several places (KVM_SET_GSI_ROUTING).

        With a split irqchip it also says whose EOI comes back as an `IoapicEoiExit`.
        """
        count = len(routes)
        routing = ffi.new("struct kvm_irq_routing *", {"nr": count, "entries": count})
        for number, route in enumerate(routes):
            entry = ffi.addressof(routing.entries, number)
            if isinstance(route, PinRoute):
                lib.cpufw_route_pin(entry, *route)
            else:
                lib.cpufw_route_msi(entry, *route)
        self.ioctl("KVM_SET_GSI_ROUTING", lib.KVM_SET_GSI_ROUTING, routing)

    def get_irqchip(self, chip: int) -> bytes:
        """The state of PIC_MASTER, PIC_SLAVE or IOAPIC (KVM_GET_IRQCHIP)."""
        state = ffi.new("struct kvm_irqchip *", {"chip_id": chip})
        self.ioctl("KVM_GET_IRQCHIP", lib.KVM_GET_IRQCHIP, state)
        return bytes(ffi.buffer(state))

    def set_irqchip(self, state: bytes) -> None:
        """Set what `get_irqchip` returned; it names its chip (KVM_SET_IRQCHIP)."""
        self.ioctl("KVM_SET_IRQCHIP", lib.KVM_SET_IRQCHIP, _copy("struct kvm_irqchip", state))

    def create_pit2(self, speaker: bool = True) -> None:
        """The 8254 timer in the kernel, with port 0x61 when `speaker` (KVM_CREATE_PIT2)."""
        flags = lib.KVM_PIT_SPEAKER_DUMMY if speaker else 0
        config = ffi.new("struct kvm_pit_config *", {"flags": flags})
        self.ioctl("KVM_CREATE_PIT2", lib.KVM_CREATE_PIT2, config)

    def get_pit2(self) -> bytes:
        """The timer's state (KVM_GET_PIT2)."""
        state = ffi.new("struct kvm_pit_state2 *")
        self.ioctl("KVM_GET_PIT2", lib.KVM_GET_PIT2, state)
        return bytes(ffi.buffer(state))

    def set_pit2(self, state: bytes) -> None:
        """Set what `get_pit2` returned (KVM_SET_PIT2)."""
        self.ioctl("KVM_SET_PIT2", lib.KVM_SET_PIT2, _copy("struct kvm_pit_state2", state))

    def get_clock(self) -> ClockData:
        """The guest's kvmclock (KVM_GET_CLOCK)."""
        data = ClockData()
        self.ioctl("KVM_GET_CLOCK", lib.KVM_GET_CLOCK, data)
        return data

    def set_clock(self, data: ClockData) -> None:
        """Set the guest's kvmclock (KVM_SET_CLOCK)."""
        self.ioctl("KVM_SET_CLOCK", lib.KVM_SET_CLOCK, data)

    def send_unknown_msrs_to_user_space(self) -> None:
        """From now on MSRs that KVM does not know exit as `MsrExit` instead of #GP."""
        self._send_msrs_to_user_space(lib.KVM_MSR_EXIT_REASON_UNKNOWN)

    def send_msr_to_user_space(self, index: int) -> None:
        """From now on the guest's accesses to this one MSR exit as `MsrExit`.

        It takes the place of the one named before (KVM_X86_SET_MSR_FILTER).
        """
        self._send_msrs_to_user_space(lib.KVM_MSR_EXIT_REASON_FILTER)
        denied = ffi.new("__u8[1]", [0])  # bit 0 belongs to `index`
        msr_filter = ffi.new("struct kvm_msr_filter *")
        msr_filter.flags = lib.KVM_MSR_FILTER_DEFAULT_ALLOW
        accesses = lib.KVM_MSR_FILTER_READ | lib.KVM_MSR_FILTER_WRITE
        entry = msr_filter.ranges[0]
        entry.flags, entry.base, entry.nmsrs, entry.bitmap = accesses, index, 1, denied
        self.ioctl("KVM_X86_SET_MSR_FILTER", lib.KVM_X86_SET_MSR_FILTER, msr_filter)

    def _send_msrs_to_user_space(self, reason: int) -> None:
        self._msr_exit_reasons |= reason
        self.enable_cap("KVM_CAP_X86_USER_SPACE_MSR", self._msr_exit_reasons)


def _copy(kind: str, state: bytes) -> object:
    copy = ffi.new(f"{kind} *")
    if len(state) != ffi.sizeof(copy[0]):
        raise KvmError(f"{kind} has {ffi.sizeof(copy[0])} bytes, not {len(state)}")
    ffi.memmove(copy, state, len(state))
    value: object = copy
    return value
