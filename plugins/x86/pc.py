"""The PC: RAM, a chipset, a thread for each vCPU, and what the guest's run comes to."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

from cpufw.core.board import Outcome
from cpufw.core.cpu import CPUState
from cpufw.core.hotplug import Slot, SlotState
from cpufw.core.machine import Machine
from cpufw.core.model import Expansion
from cpufw.errors import AcceleratorError, GuestError, HotplugError, KvmError, UsageError
from cpufw.kvm import Exit, InternalErrorExit, MemoryBackend, ShutdownExit, SystemEventExit
from cpufw_x86.accelerator import X86KvmAccelerator
from cpufw_x86.assist import Assist
from cpufw_x86.chipset import Chipset
from cpufw_x86.configuration import identity_of
from cpufw_x86.crash import death_text, place_text
from cpufw_x86.guest_start import GuestStart, kernel_for_firmware
from cpufw_x86.inspect import Inspection
from cpufw_x86.kvm import ClockData
from cpufw_x86.memory import GuestRam, check_addressable
from cpufw_x86.memory_map import HOLE_START, IDENTITY_MAP_ADDRESS, TSS_ADDRESS
from cpufw_x86.pc_options import PcOptions
from cpufw_x86.run_end import GUEST_RESET, HOST_RESET, status_of, tell_end
from cpufw_x86.run_gate import RunGate
from cpufw_x86.smp_limits import check_vcpus
from cpufw_x86.state.board import PcState
from cpufw_x86.vcpu import PooledVcpu, VcpuPool
from cpufw_x86.vcpu_thread import VcpuThread

_LAST_WORDS = 1.0  # seconds that the output of a guest that is stopped may take to be read

# QMP's type GuestPanicAction.
_PANIC_ACTIONS = {"report": "poweroff", "reset": "run", "pause": "pause", "ignore": "run"}

DIED, TIMED_OUT = 3, 124  # exit statuses; 124 as of timeout(1)

_POWER_OFF = Outcome("power-off", 0, "the guest powered off")
_RESET = Outcome("reset", 0, "the guest reset the machine")
_HOST_RESET = Outcome("reset", 0, "the machine was reset")


class PcBoard(Inspection):
    """The board of the machine type `pc`; its options are `PcOptions`.

    Raises `UsageError` for others, `ImageError` for an image that does not fit.
    """

    def __init__(self, machine: Machine, options: Mapping[str, Any]) -> None:
        accelerator = machine.accelerator
        if not isinstance(accelerator, X86KvmAccelerator):
            raise AcceleratorError("machine type pc needs the accelerator kvm")
        self.options = PcOptions.of(options)
        self.machine, self.gate = machine, RunGate()
        self.gate.shut()  # until `start`; the threads are there before, to be seen and pinned
        self._threads: dict[int, VcpuThread] = {}
        self._affinity: dict[int, frozenset[int]] = {}
        self._changed = threading.Condition()
        self._outcome: Outcome | None = None
        self._output_error: BaseException | None = None
        self._started = False
        self._paused = ""  # what it is called, while it is paused
        self.paused_clock = 0
        """Where the guest's clock stands while it is paused, in ns."""
        self._reset_wanted = False
        self._pause_wanted = ""
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

    def _start_vcpu(self, slot: Slot) -> None:
        thread = VcpuThread(
            slot,
            _pooled(slot),
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

    # --- the run -------------------------------------------------------------------------

    def start(self) -> None:
        """Enter the image on the boot CPU, again after a reset of a paused guest.

        Raises `HotplugError` if the guest has run before.
        """
        if self._paused == "prelaunch":
            self.resume()
            return
        if self._started:
            raise HotplugError("the guest has been started already")
        with self.machine.hotplug.lock:
            self._enter()
            self.chipset.start()
            self._started = True
        self.gate.open()
        self.machine.notify("RESUME")

    def _enter(self) -> None:
        if self.state.is_loaded:
            self.state.begin()
        else:
            self.guest.enter(_pooled(self.machine.slots[0]).vcpu)

    def save(self, path: str | Path, *, compress: bool = False) -> None:
        """Save the guest in a file, running or paused, and let it go on. Raises `StateError`."""
        from cpufw.snapshot.snapshot import save

        save(self.machine, Path(path), compress=compress)

    @property
    def status(self) -> str:
        """What the guest does, in QMP's words (its type `RunState`)."""
        if self._outcome is not None:
            return status_of(self._outcome)
        if not self._started:
            return "prelaunch"
        return self._paused or "running"

    def pause(self, status: str = "paused") -> None:
        """Hold all vCPUs; the guest's clock stands still. Raises `GuestError` if one is stuck."""
        with self.gate.held():
            if self.status == "running":
                self.paused_clock = self.vm.get_clock().clock
                self._paused = status
                self.gate.shut()
                self.chipset.virtio.pause()
                self.machine.notify("STOP")

    def resume(self) -> None:
        """Let the vCPUs go on, and tell the guest's watchdogs that it was paused."""
        with self.gate.held():
            if self._paused:
                self.vm.set_clock(ClockData(clock=self.paused_clock))
                for vcpu in self.vm.vcpus.values():
                    with suppress(KvmError):  # a guest that does not use kvmclock
                        vcpu.kvmclock_ctrl()  # type: ignore[attr-defined]
                self._paused = ""
                self.chipset.virtio.resume()
                self.gate.open()
                self.machine.notify("RESUME")

    @contextmanager
    def held(self) -> Iterator[None]:
        """In this block no vCPU runs and all accesses are finished: state can be read and set."""
        with self.gate.held():
            if self._reset_wanted and self._outcome is None:
                self._reset(GUEST_RESET)  # what the guest asked for is not lost in between
            yield

    def reset(self) -> None:
        """Begin again from the start, with the CPUs that are plugged. Raises `GuestError`.

        A guest that is paused, powered off or panicked then waits to be started.
        """
        if self._outcome is not None:
            self._revive(self._outcome)
            return
        if not self._started:
            self.machine.notify("RESET", guest=False, reason=HOST_RESET)
            return
        if not self.options.reboot:
            self.end(_HOST_RESET, HOST_RESET)
            return
        with self.gate.held():
            self._reset(HOST_RESET)
            if self._paused:
                self._paused = "prelaunch"

    def _revive(self, outcome: Outcome) -> None:
        """Reset a guest that has ended; its vCPUs wait at the gate."""
        if outcome.reason in ("died", "stopped"):  # threads are gone
            raise GuestError("the guest has ended: it cannot be reset")
        with self.gate.held():
            self.paused_clock = self.vm.get_clock().clock
            self.chipset.virtio.pause()
            self._reset(HOST_RESET)
            self._paused, self._outcome = "prelaunch", None

    def _reset(self, reason: str) -> None:
        with self.machine.hotplug.lock:
            self._reset_wanted = False
            self.chipset.reset()
            self.assist.reset()
            for slot in self.machine.slots:
                if slot.cpu is not None:
                    slot.cpu.reset()
            self.guest.place()
            self._enter()
        self.machine.notify("RESET", guest=reason == GUEST_RESET, reason=reason)

    def on_reset_request(self) -> None:
        """The guest asks for a reset, on the thread of one of its vCPUs."""
        if not self.options.reboot:
            self.end(_RESET)
            return
        self._reset_wanted = True
        for thread in list(self._threads.values()):
            thread.call_out()

    def _on_outside(self) -> None:
        if self._pause_wanted:
            status, self._pause_wanted = self._pause_wanted, ""
            self.pause(status)
        if self._reset_wanted and self._outcome is None:
            with self.gate.held():
                if self._reset_wanted:  # no other vCPU's thread was quicker
                    self._reset(GUEST_RESET)

    def nmi(self) -> None:
        """Give every CPU a non-maskable interrupt."""
        with self.gate.held():
            for slot in self.machine.slots:
                if slot.cpu is not None:
                    _pooled(slot).vcpu.nmi()

    def wait(self, timeout: float | None = None) -> Outcome:
        """Wait until the guest ends, at most `timeout` seconds (outcome `timeout`).

        Raises what the serial sink raised.
        """
        deadline = None if timeout is None else monotonic() + timeout
        patience = self.options.watchdog
        look = monotonic() + patience
        while True:
            with self._changed:
                self._changed.wait_for(self._ended, _left(deadline, look if patience else None))
                outcome = self._outcome
            if self._output_error is not None:
                raise self._output_error
            if outcome is not None:
                self.chipset.serial.flush(_left(deadline))
                if self._output_error is not None:
                    raise self._output_error
                return outcome
            now = monotonic()
            if patience and now >= look and not self._paused:
                stuck = self.gate.check(patience)
                if stuck:
                    self.end(Outcome("died", DIED, f"watchdog: {stuck}"))
                look = monotonic() + patience
            if deadline is not None and now >= deadline:
                return Outcome("timeout", TIMED_OUT, f"the guest did not end in {timeout:g} s")

    def _ended(self) -> bool:
        return self._outcome is not None or self._output_error is not None

    def powerdown(self) -> None:
        """Ask the guest to power off, as a person at the case would."""
        self.machine.notify("POWERDOWN")
        self.chipset.pm.press_power_button()

    def on_power_off(self) -> None:
        """The guest turned the machine off."""
        self.end(_POWER_OFF)

    def on_debug_exit(self, status: int) -> None:
        """The guest wrote to the debug exit port."""
        self.end(Outcome("exit", status & 0xFF, ""))

    def stop(self) -> None:
        """Stop every vCPU; the guest's last output is still passed on."""
        threads = list(self._threads.values())
        for thread in threads:
            thread.stopping = True
        self.gate.wake()
        for thread in threads:
            thread.call_out()
        for thread in threads:
            thread.join()
        self._threads.clear()
        self.end(Outcome("stopped", 0, "the guest was stopped"))
        if hasattr(self, "chipset"):
            self.chipset.serial.flush(_LAST_WORDS)

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
            f"vCPU {slot.index}{place_text(_pooled(slot).vcpu, self.ram)}"
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

    # --- what the threads report ---------------------------------------------------------

    def end(self, outcome: Outcome, cause: str = "") -> None:
        """The run is over: no vCPU enters the guest again, and `wait` returns `outcome`.

        `cause` is QMP's, where the outcome does not tell it.
        """
        with self._changed:
            if self._outcome is not None:
                return
            self._outcome = outcome
            self._changed.notify_all()
        self.gate.shut()
        tell_end(self.machine, outcome, cause)

    def _on_death(self, thread: VcpuThread, reason: str, exit: Exit | None) -> None:
        if isinstance(exit, ShutdownExit) and self.options.on_crash != "report":
            self._crashed(self.options.on_crash, "paused")
            return
        if isinstance(exit, SystemEventExit) and reason == "reset":
            self.on_reset_request()
            return
        if isinstance(exit, SystemEventExit) and reason == "crash":
            self.on_panic()
            return
        said = f"vCPU {thread.slot.index} died: {reason}"
        why = self.assist.refusal if isinstance(exit, InternalErrorExit) else ""
        text = f"{said}\n{death_text(thread.vcpu, exit, self.ram)}"
        self.end(Outcome("died", DIED, f"{text}\n{why}" if why else text))

    def _crashed(self, action: str, status: str) -> None:
        """Ask for a reset or a pause, as `action` says; a pause shows as `status`."""
        if action == "reset":
            self._reset_wanted = True
        else:
            self._pause_wanted = status
        for thread in list(self._threads.values()):
            thread.call_out()

    def on_panic(self) -> None:
        """The guest says that it panicked."""
        action = self.options.on_panic or self.options.on_crash
        self.machine.notify("GUEST_PANICKED", action=_PANIC_ACTIONS[action])
        if action == "report":
            self.end(Outcome("panicked", DIED, "the guest panicked"))
        elif action != "ignore":
            self._crashed(action, "guest-panicked")

    def on_output_error(self, error: BaseException) -> None:
        """A full disk, a closed pipe: `wait` raises it."""
        with self._changed:
            self._output_error = self._output_error or error
            self._changed.notify_all()

    def on_command(self, key: str) -> None:
        """A key after the console's escape key (see docs/serial.md): x ends the run."""
        if key == "x":
            self.end(Outcome("stopped", 0, "stopped from the console"))


def _left(*deadlines: float | None) -> float | None:
    """Seconds until the first of these; None without any."""
    given = [deadline for deadline in deadlines if deadline is not None]
    return max(0.0, min(given) - monotonic()) if given else None


def _pooled(slot: Slot) -> PooledVcpu:
    pooled: PooledVcpu = slot.cpu.vcpu  # type: ignore[union-attr]
    return pooled


def _listed(host_cpus: frozenset[int]) -> str:
    return ",".join(map(str, sorted(host_cpus))) or "none"


def _expansion(machine: Machine) -> Expansion:
    cpu: CPUState = machine.cpu_class(**machine.cpu_properties)
    return cpu.expand(machine)


def _physical_address_bits(machine: Machine) -> int:
    expansion = _expansion(machine)
    return identity_of(expansion, expansion.features, machine.topology).phys_bits
