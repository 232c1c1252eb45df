"""Interrupt controllers: all in the kernel, or only the local APICs (split)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from cpufw.errors import KvmError, UsageError
from cpufw_x86.devices.ioapic import PINS, Ioapic, Message
from cpufw_x86.kvm import X86VM
from cpufw_x86.kvm.vm import IOAPIC, PIC_MASTER, PIC_SLAVE, GsiRoute, MsiRoute, PinRoute

_TIMER_PIN = 2  # ACPI 6.5, 5.2.12.5: the source override of a PC's timer

IRQCHIPS = ("on", "split")
"""What `kernel_irqchip` can be.

`on`: PICs, I/O APIC, PIT and local APICs in the kernel. `split`: the I/O APIC is cpufw's own, which
reaches APIC ids beyond 255; there are no PICs and no PIT, so a guest needs its local APICs' timers.
"""


class InterruptControllers(Protocol):
    """What a board asks of its interrupt controllers."""

    @property
    def has_pic(self) -> bool:
        """Whether there are PICs and a PIT."""
        ...

    @property
    def ioapic(self) -> Ioapic | None:
        """The device for the MMIO bus, if the I/O APIC is not in the kernel."""
        ...

    @property
    def cpu_features(self) -> tuple[str, ...]:
        """CPU features that they bring about."""
        ...

    def set_irq(self, gsi: int, level: bool) -> None:
        """Set the level of a global system interrupt (an ISA line or a pin of the I/O APIC)."""

    def eoi(self, vector: int) -> None:
        """A local APIC acknowledged `vector` (KVM_EXIT_IOAPIC_EOI)."""

    def reset(self) -> None:
        """To the power-on state; no vCPU may run."""


class KernelIrqchip:
    """Everything in the kernel (KVM_CREATE_IRQCHIP, KVM_CREATE_PIT2)."""

    has_pic = True
    ioapic = None
    cpu_features = ()

    def __init__(self, vm: X86VM) -> None:
        self._vm = vm
        vm.create_irqchip()
        vm.create_pit2()
        vm.set_gsi_routing(_isa_routes())
        self._power_on = [vm.get_irqchip(chip) for chip in (PIC_MASTER, PIC_SLAVE, IOAPIC)]
        self._timer = vm.get_pit2()

    def set_irq(self, gsi: int, level: bool) -> None:
        """See InterruptControllers."""
        self._vm.irq_line(gsi, int(level))

    def eoi(self, vector: int) -> None:
        """The kernel's I/O APIC has seen it."""

    def reset(self) -> None:
        """See InterruptControllers."""
        for state in self._power_on:
            self._vm.set_irqchip(state)
        self._vm.set_pit2(self._timer)


class SplitIrqchip:
    """Local APICs in the kernel, the I/O APIC here; no PICs and no PIT (KVM_CAP_SPLIT_IRQCHIP)."""

    has_pic = False
    # Linux Documentation/virt/kvm/x86/cpuid.rst: it is for user space to give.
    cpu_features = ("kvm-msi-ext-dest-id",)

    def __init__(self, vm: X86VM) -> None:
        self._vm = vm
        vm.create_split_irqchip()
        self.ioapic = Ioapic(vm.signal_msi, self._route)

    def _route(self, messages: Mapping[int, Message]) -> None:
        self._vm.set_gsi_routing([MsiRoute(pin, *message) for pin, message in messages.items()])

    def set_irq(self, gsi: int, level: bool) -> None:
        """See InterruptControllers."""
        self.ioapic.set_irq(gsi, level)

    def eoi(self, vector: int) -> None:
        """See InterruptControllers."""
        self.ioapic.eoi(vector)

    def reset(self) -> None:
        """See InterruptControllers."""
        self.ioapic.reset()


def _isa_routes() -> list[GsiRoute]:
    """Lines 0 to 15 lead to the PICs and the I/O APIC, those above to the I/O APIC alone.

    The timer's line 0 is on pin 2, as PCs have it and the MADT says; KVM by itself puts it on 0.
    """
    pics: list[GsiRoute] = [
        PinRoute(line, PIC_MASTER if line < 8 else PIC_SLAVE, line % 8) for line in range(16)
    ]
    pins = [PinRoute(line, IOAPIC, line) for line in range(PINS) if line not in (0, _TIMER_PIN)]
    return [*pics, PinRoute(0, IOAPIC, _TIMER_PIN), *pins]


def create_irqchip(vm: X86VM, kind: str | None, highest_apic_id: int) -> InterruptControllers:
    """Make the controllers of `vm`, before its first vCPU.

    `kind` is one of `IRQCHIPS`, or None for what the APIC ids need: the kernel's I/O APIC does not
    reach beyond `XAPIC_IDS`. Raises `UsageError` for another `kind`.
    """
    if kind is None:
        kind = "on" if highest_apic_id < XAPIC_IDS else "split"
    if kind not in IRQCHIPS:
        raise UsageError(f"kernel_irqchip '{kind}' is not one of {', '.join(IRQCHIPS)}")
    with suppress(KvmError):  # it only saves the kernel memory, and older ones cannot
        vm.limit_vcpu_ids(highest_apic_id + 1)
    if kind == "split" or highest_apic_id >= XAPIC_IDS:
        vm.enable_x2apic_ids()
    return SplitIrqchip(vm) if kind == "split" else KernelIrqchip(vm)


XAPIC_IDS = 0xFF
"""APIC ids below this fit into an xAPIC's 8 bits; 255 means all CPUs (Intel SDM vol. 3A, 11.6)."""
