"""The PC: RAM, interrupt controllers, serial port, ACPI hot-plug, and a thread for each vCPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from cpufw.core.board import Outcome
from cpufw.core.cpu import CPUState
from cpufw.core.hotplug import Slot, SlotState
from cpufw.core.machine import Machine
from cpufw.errors import AcceleratorError, HotplugError, KvmError, UsageError
from cpufw.kvm import Exit, InternalErrorExit, ShutdownExit
from cpufw.kvm.native import lib
from cpufw_x86.accelerator import X86KvmAccelerator
from cpufw_x86.configuration import identity_of
from cpufw_x86.crash import code_text, is_power_on_state, registers_text
from cpufw_x86.devices import (
    AcpiPm,
    CpuHotplugBlock,
    DebugConsole,
    DebugExit,
    KeyboardReset,
    PortBus,
    ResetControl,
)
from cpufw_x86.entry import check_entry, enter
from cpufw_x86.image import EntryMode, Image, load_image
from cpufw_x86.kvm import X86VCPU
from cpufw_x86.memory import HOLE_START, GuestRam, check_addressable, parse_size
from cpufw_x86.vcpu import VcpuPool
from cpufw_x86.vcpu_thread import VcpuThread

# Four pages below the BIOS area that VMX needs where it cannot run real mode by itself.
_IDENTITY_MAP, _TSS = 0xFFFB_C000, 0xFFFB_D000
COM1 = 0x3F8
_SCI_IRQ = 9  # ACPI 6.5, 5.2.9, SCI_INT; the PC's customary line

# ACPI 6.5, 6.3.5 _OST: source events and status codes that a slot's life depends on.
_OST_EJECT_REQUEST, _OST_EJECTION_PROCESSING = 0x3, 0x103
_OST_SUCCESS = 0x0
_OST_EJECT_IN_PROGRESS = frozenset({0x84, 0x85})

_TICK = 0.05  # how often waiting output without a newline is looked for, in seconds

DIED, TIMED_OUT = 3, 124  # exit statuses; 124 as of timeout(1)


def _discard(data: bytes) -> None:
    """Take the output of a guest that nobody listens to."""


class PcBoard:
    """The board of the machine type `pc`.

    Options: `memory` (`"128M"`), `kernel` (an image's path), `entry_mode` (`real`, `protected`,
    `long`), `load_address` (of a flat image), `serial` (called with the bytes the guest sends to
    COM1). Raises `UsageError` for others, `ImageError` for an image that does not fit.
    """

    def __init__(self, machine: Machine, options: Mapping[str, Any]) -> None:
        accelerator = machine.accelerator
        if not isinstance(accelerator, X86KvmAccelerator):
            raise AcceleratorError("machine type pc needs the accelerator kvm")
        known = ("memory", "kernel", "entry_mode", "load_address", "serial")
        for name in options:
            if name not in known:
                raise UsageError(f"machine type pc has no option '{name}', only {', '.join(known)}")
        self.machine = machine
        self._serial: Callable[[bytes], None] = options.get("serial") or _discard
        self._threads: dict[int, VcpuThread] = {}
        self._changed = threading.Condition()
        self._outcome: Outcome | None = None
        self._output_error: BaseException | None = None
        self._started = False
        self._drain_lock = threading.Lock()
        image, memory = _image(options), parse_size(options.get("memory", "128M"))
        if memory > HOLE_START:  # below that even the smallest CPU reaches all of it
            check_addressable(memory, _physical_address_bits(machine))
        self.vm = accelerator.kvm.create_vm()
        try:
            self._build(memory)
            if image is not None:
                self._place(image)
        except BaseException:
            self.close()
            raise
        self.image = image

    def _build(self, memory: int) -> None:
        vm, machine = self.vm, self.machine
        vm.set_identity_map_addr(_IDENTITY_MAP)
        vm.set_tss_addr(_TSS)
        vm.create_irqchip()
        vm.create_pit2()
        self.ram = GuestRam(vm, memory)
        self.pool = VcpuPool(vm)
        self.uart = vm.add_uart(COM1)
        self.pm = AcpiPm(
            lambda level: vm.irq_line(_SCI_IRQ, int(level)),
            lambda: self._end(Outcome("power-off", 0, "the guest powered off")),
        )
        self.hotplug = CpuHotplugBlock(
            [slot.arch_id for slot in machine.slots],
            raise_gpe=self.pm.raise_gpe,
            on_ost=self._on_ost,
            on_eject=lambda index: machine.eject(machine.slots[index]),
        )
        self.hotplug.attach(vm)
        self.bus = PortBus()
        reset = Outcome("reset", 0, "the guest reset the machine")
        for device in (
            self.pm,
            self.hotplug,
            DebugExit(lambda status: self._end(Outcome("exit", status & 0xFF, ""))),
            ResetControl(lambda: self._end(reset)),
            KeyboardReset(lambda: self._end(reset)),
            DebugConsole(self._send),
        ):
            self.bus.add(device)

    def _place(self, image: Image) -> None:
        for segment in image.segments:
            self.ram.check(segment.address, segment.size, f"guest image {image.path}")
            self.ram.write(segment.address, segment.data)

    # --- the CPUs ------------------------------------------------------------------------

    def cpu_plugged(self, slot: Slot, hotplugged: bool) -> None:
        """Start the vCPU's thread if the guest runs, and tell the guest of a hot-plugged one."""
        if self._started:
            self._start_vcpu(slot)
        if hotplugged and self._started:
            self.hotplug.request_insert(slot.index)
        else:
            self.hotplug.set_enabled(slot.index, True)

    def cpu_unplug_request(self, slot: Slot) -> None:
        """Ask the guest through the hot-plug registers; before its start nobody needs asking."""
        if self._started:
            self.hotplug.request_remove(slot.index)
        else:
            self.machine.eject(slot)

    def cpu_unplug_withdraw(self, slot: Slot) -> bool:
        """Clear the event in the hot-plug registers, if the guest has not seen it yet."""
        return self.hotplug.cancel_remove(slot.index)

    def cpu_unplugged(self, slot: Slot) -> None:
        """Stop the vCPU's thread."""
        self.hotplug.set_enabled(slot.index, False)
        thread = self._threads.pop(slot.index, None)
        if thread is not None:
            thread.request_stop()
            thread.join()

    def _on_ost(self, index: int, event: int, status: int) -> None:
        slot = self.machine.slots[index]
        detail = f"_OST event {event:#x}, status {status:#x}"
        if event in (_OST_EJECT_REQUEST, _OST_EJECTION_PROCESSING):
            if status != _OST_SUCCESS and status not in _OST_EJECT_IN_PROGRESS:
                self.machine.unplug_refused(slot, detail)
                return
        elif status == _OST_SUCCESS:
            self.machine.cpu_online(slot, detail)
            return
        self.machine.hotplug.report(slot, detail)

    def _start_vcpu(self, slot: Slot) -> None:
        cpu = slot.cpu
        assert cpu is not None
        thread = VcpuThread(
            slot,
            cpu.vcpu,  # type: ignore[attr-defined]
            self.bus,
            on_alive=self._on_alive,
            on_output=self._drain,
            on_death=self._on_death,
        )
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

    # --- the run -------------------------------------------------------------------------

    def start(self) -> None:
        """Enter the image on the boot CPU. Raises `HotplugError` if the guest has run before."""
        if self._started:
            raise HotplugError("the guest has been started already")
        if self.image is None:
            raise UsageError("there is nothing to run: the machine was made without a kernel")
        boot = self.machine.slots[0].cpu
        assert boot is not None
        with self.machine.hotplug.lock:
            enter(boot.vcpu.vcpu, self.image, self.ram.write)  # type: ignore[attr-defined]
            self._started = True
            for slot in self.machine.slots:
                if slot.cpu is not None:
                    self._start_vcpu(slot)

    def wait(self, timeout: float | None = None) -> Outcome:
        """Wait until the guest ends, at most `timeout` seconds (outcome `timeout`).

        Passes on output meanwhile; raises what the serial sink raised.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            with self._changed:
                self._changed.wait_for(self._ended, _TICK)
                outcome = self._outcome
            self._drain()
            if self._output_error is not None:
                raise self._output_error
            if outcome is not None:
                return outcome
            if deadline is not None and monotonic() >= deadline:
                return Outcome("timeout", TIMED_OUT, f"the guest did not end in {timeout:g} s")

    def _ended(self) -> bool:
        return self._outcome is not None or self._output_error is not None

    def powerdown(self) -> None:
        """Ask the guest to power off, as a person at the case would."""
        self.pm.press_power_button()

    def stop(self) -> None:
        """Stop every vCPU; the guest's last output is still passed on."""
        threads = list(self._threads.values())
        for thread in threads:
            thread.request_stop()
        for thread in threads:
            thread.join()
        self._threads.clear()
        self._end(Outcome("stopped", 0, "the guest was stopped"))
        if hasattr(self, "uart"):
            self._drain()

    def describe(self) -> str:
        """Registers and code of each vCPU; call it after `stop`."""
        parts = []
        for slot in self.machine.slots:
            if slot.cpu is None:
                continue
            vcpu: X86VCPU = slot.cpu.vcpu.vcpu  # type: ignore[attr-defined]
            match vcpu.get_mp_state():
                case lib.KVM_MP_STATE_UNINITIALIZED | lib.KVM_MP_STATE_INIT_RECEIVED:
                    parts.append(f"vCPU {slot.index}: the guest has not started it")
                    continue
                case lib.KVM_MP_STATE_HALTED:
                    parts.append(f"vCPU {slot.index}: halted")
                case _:
                    parts.append(f"vCPU {slot.index}:")
            parts += [registers_text(vcpu), code_text(vcpu, self.ram)]
        return "\n".join(parts)

    def close(self) -> None:
        """Close the VM and give its memory back."""
        self.vm.close()
        if hasattr(self, "ram"):
            self.ram.close()

    # --- what the threads report ---------------------------------------------------------

    def _end(self, outcome: Outcome) -> None:
        with self._changed:
            if self._outcome is None:
                self._outcome = outcome
                self._changed.notify_all()

    def _on_death(self, thread: VcpuThread, reason: str, exit: Exit | None) -> None:
        if not reason:
            return
        failed = exit.instruction if isinstance(exit, InternalErrorExit) else b""
        lines = [f"vCPU {thread.slot.index} died: {reason}"]
        try:
            lines.append(registers_text(thread.vcpu))
            if isinstance(exit, ShutdownExit) and is_power_on_state(thread.vcpu):
                lines.append("KVM reset the registers, as it does on AMD-V: what was there is lost")
            else:
                lines.append(code_text(thread.vcpu, self.ram, failed))
        except KvmError as error:
            lines.append(f"its registers cannot be read: {error}")
        self._end(Outcome("died", DIED, "\n".join(lines)))

    def _drain(self) -> None:
        with self._drain_lock:
            data = self.uart.drain()
            if data:
                self._send(data)

    def _send(self, data: bytes) -> None:
        try:
            self._serial(data)
        except Exception as error:  # a full disk, a closed pipe: `wait` raises it
            with self._changed:
                self._output_error = self._output_error or error
                self._changed.notify_all()


def _physical_address_bits(machine: Machine) -> int:
    cpu: CPUState = machine.cpu_class(**machine.cpu_properties)
    expansion = cpu.expand(machine)
    return identity_of(expansion, expansion.features, machine.topology).phys_bits


def _image(options: Mapping[str, Any]) -> Image | None:
    kernel = options.get("kernel")
    if kernel is None:
        return None
    mode = options.get("entry_mode")
    try:
        entry_mode = EntryMode(mode) if mode is not None else None
    except ValueError:
        modes = ", ".join(each.value for each in EntryMode)
        raise UsageError(f"entry mode '{mode}' is not one of {modes}") from None
    image = load_image(Path(kernel), entry_mode, options.get("load_address"))
    check_entry(image)
    return image
