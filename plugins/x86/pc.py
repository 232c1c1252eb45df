"""The PC: RAM, a chipset, and a thread for each vCPU, which comes and goes with its CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.core.cpu import CPUState
from cpufw.core.hotplug import Slot, SlotState
from cpufw.core.machine import Machine
from cpufw.core.model import Expansion
from cpufw.errors import AcceleratorError, KvmError, UsageError
from cpufw.kvm import MemoryBackend
from cpufw_x86.accelerator import X86KvmAccelerator
from cpufw_x86.assist import Assist
from cpufw_x86.chipset import Chipset
from cpufw_x86.configuration import identity_of
from cpufw_x86.crash import place_text
from cpufw_x86.guest_start import GuestStart, kernel_for_firmware
from cpufw_x86.inspect import Inspection
from cpufw_x86.memory import GuestRam, check_addressable
from cpufw_x86.memory_map import HOLE_START, IDENTITY_MAP_ADDRESS, TSS_ADDRESS
from cpufw_x86.pc_options import PcOptions
from cpufw_x86.pc_run import PcRun
from cpufw_x86.smp_limits import check_vcpus
from cpufw_x86.state.board import PcState
from cpufw_x86.vcpu import VcpuPool, pooled
from cpufw_x86.vcpu_thread import VcpuThread

if TYPE_CHECKING:
    from cpufw.core.disk import Disk
    from cpufw.core.statistics import Statistic


class PcBoard(PcRun, Inspection):
    """The board of the machine type `pc`; its options are `PcOptions`.

    Raises `UsageError` for others, `ImageError` for an image that does not fit.
    """

    def __init__(self, machine: Machine, options: Mapping[str, Any]) -> None:
        accelerator = machine.accelerator
        if not isinstance(accelerator, X86KvmAccelerator):
            raise AcceleratorError("machine type pc needs the accelerator kvm")
        super().__init__(machine, PcOptions.of(options))
        self._affinity: dict[int, frozenset[int]] = {}
        memory = self.options.memory
        if memory > HOLE_START:  # below that even the smallest CPU reaches all of it
            check_addressable(memory, _physical_address_bits(machine))
        apic_ids = [slot.arch_id for slot in machine.slots]
        check_vcpus(accelerator.kvm, apic_ids, lambda: "x2apic" in _expansion(machine).features)
        self.vm = accelerator.kvm.create_vm()
        try:
            self.vm.set_identity_map_addr(IDENTITY_MAP_ADDRESS)
            self.vm.set_tss_addr(TSS_ADDRESS)
            self.ram = GuestRam(self.vm, memory, MemoryBackend.parse(self.options.memory_backend))
            self.chipset = Chipset(self, self.vm)
            self.cpu_features = self.chipset.irqchip.cpu_features
            self.assist = Assist(self.options.assist)
            self.assist.attach(self.vm, self.ram)
            self.pool = VcpuPool(self.vm)
            self.guest = GuestStart(self.options, self.ram, self.chipset.acpi)
            for key, data in kernel_for_firmware(self.options).items():
                self.chipset.fw_cfg.put(key, data)
            for name, data in (*self.guest.fw_cfg_files().items(), *self.options.fw_cfg):
                self.chipset.fw_cfg.add_file(name, data)
            self.state = PcState(self)
            for index, host_cpus in self.options.pin.items():
                self.pin(index, host_cpus)
        except BaseException:
            self.close()
            raise

    def show_devices(self) -> None:
        """Put devices, memory and what the guest is started from into the machine's tree."""
        from cpufw_x86.object_tree import show

        show(self)

    @property
    def memory_size(self) -> int:
        """Bytes of RAM."""
        return self.options.memory

    # --- the CPUs ------------------------------------------------------------------------

    def cpu_plugged(self, slot: Slot, hotplugged: bool) -> None:
        """Start the vCPU's thread, and tell a guest that runs of a hot-plugged one."""
        self._start_vcpu(slot)
        if hotplugged and self._started:
            self.chipset.hotplug.request_insert(slot.index)
        else:
            self.chipset.hotplug.set_enabled(slot.index, True)

    def cpu_unplug_request(self, slot: Slot) -> None:
        """Ask the guest through the hot-plug registers; before its start nobody needs asking."""
        if self._started:
            self.chipset.hotplug.request_remove(slot.index)
        else:
            self.machine.eject(slot)

    def cpu_unplug_withdraw(self, slot: Slot) -> bool:
        """Clear the event in the hot-plug registers, if the guest has not seen it yet."""
        return self.chipset.hotplug.cancel_remove(slot.index)

    def cpu_unplugged(self, slot: Slot) -> None:
        """Stop the vCPU's thread."""
        self.chipset.hotplug.set_enabled(slot.index, False)
        thread = self._threads.pop(slot.index, None)
        if thread is not None:
            thread.request_stop()
            thread.join()

    def node_of(self, slot: Slot) -> int | None:
        """The NUMA node that `--numa` gives the slot."""
        numa = self.chipset.numa
        return numa.slots[slot.index] if numa is not None else None

    def thread_id(self, slot: Slot) -> int:
        """The kernel's number of the vCPU's thread; 0 for a slot without one."""
        thread = self._threads.get(slot.index)
        return thread.thread_id if thread is not None else 0

    def ospm_status(self) -> list[tuple[Slot, int, int]]:
        """Source event and status of the guest's last _OST; 0 and 0 before it said anything."""
        last_ost = self.chipset.hotplug.last_ost
        return [(slot, *last_ost(slot.index)) for slot in self.machine.slots]

    def block_devices(self) -> list[Disk]:
        """The virtio disks, in the order of the option `drives`."""
        from cpufw_x86.object_tree import disks

        return disks(self)

    def statistics(self, slot: Slot | None = None) -> list[Statistic]:
        """What KVM counts of the VM, or of the CPU of `slot`, which is held once for that."""
        if slot is None:
            return self.vm.statistics()
        return self.vm.statistics(pooled(slot).vcpu, self.gate.held) if slot.cpu else []

    def _start_vcpu(self, slot: Slot) -> None:
        thread = VcpuThread(
            slot,
            pooled(slot),
            self.chipset.ports,
            self.chipset.memory,
            self.assist,
            self.gate,
            on_alive=self._on_alive,
            on_output=self.chipset.serial.wait_for_room,
            on_death=self._on_death,
            on_outside=self._on_outside,
            on_eoi=self.chipset.irqchip.eoi,
        )
        host_cpus = self._affinity.get(slot.index)
        if host_cpus is not None:
            thread.pin(host_cpus)
        self._threads[slot.index] = thread
        thread.start()

    def _on_alive(self, slot: Slot) -> None:
        with self.machine.hotplug.lock:
            self.machine.cpu_online(slot)
            # While nobody waits for it, have a vCPU ready for the plug that is likely next.
            empty = next((s for s in self.machine.slots if s.state is SlotState.EMPTY), None)
            if empty is not None and slot.cpu is not None:
                with suppress(KvmError):  # the plug that needs it will meet it again, and tell
                    slot.cpu.prepare(empty.arch_id)  # type: ignore[attr-defined]

    def pin(self, index: int, host_cpus: frozenset[int]) -> None:
        """Let the vCPU of slot `index` run on these CPUs of the host only, now and when plugged.

        Raises `UsageError` for a slot or CPUs that are not there.
        """
        if not 0 <= index < len(self.machine.slots):
            raise UsageError(f"vCPU {index} cannot be pinned: slots are 0 to {self._last_slot}")
        there = frozenset(os.sched_getaffinity(0))
        if not host_cpus or not host_cpus <= there:
            raise UsageError(
                f"vCPU {index} cannot be pinned to {_listed(host_cpus)}: this process may use "
                f"the host's CPUs {_listed(there)}"
            )
        self._affinity[index] = host_cpus
        if index in self._threads:
            self._threads[index].pin(host_cpus)

    @property
    def _last_slot(self) -> int:
        return len(self.machine.slots) - 1

    # --- what users do besides -----------------------------------------------------------

    def save(self, path: str | Path, *, compress: bool = False) -> None:
        """Save the guest in a file, running or paused, and let it go on. Raises `StateError`."""
        from cpufw.snapshot.snapshot import save

        save(self.machine, Path(path), compress=compress)

    def type_text(self, data: bytes) -> None:
        """Type at the guest's console."""
        self.chipset.serial.ports[0].type_text(data)

    def report(self) -> list[str]:
        """What there is to say of the run: instructions finished for KVM, devices that broke."""
        counts = ", ".join(f"{name} {count}" for name, count in self.assist.report().items())
        assists = [f"assists: {counts}"] if counts else []
        return [*assists, *self.assist.notes(), *self.chipset.virtio.problems()]

    def describe(self) -> str:
        """Registers and code of each vCPU; call it after `stop`."""
        return "\n".join(
            f"vCPU {slot.index}{place_text(pooled(slot).vcpu, self.ram)}"
            for slot in self.machine.slots
            if slot.cpu is not None
        )

    def close(self) -> None:
        """Close the VM and give its memory back."""
        if hasattr(self, "chipset"):
            self.chipset.disconnect()
        self.vm.close()
        if hasattr(self, "chipset"):
            self.chipset.close()
        if hasattr(self, "ram"):
            self.ram.close()


def _listed(host_cpus: frozenset[int]) -> str:
    return ",".join(map(str, sorted(host_cpus))) or "none"


def _expansion(machine: Machine) -> Expansion:
    cpu: CPUState = machine.cpu_class(**machine.cpu_properties)
    return cpu.expand(machine)


def _physical_address_bits(machine: Machine) -> int:
    expansion = _expansion(machine)
    return identity_of(expansion, expansion.features, machine.topology).phys_bits
