"""A PC's run: its guest starts, is held, paused and reset, and comes to an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING

from cpufw.core.board import Outcome
from cpufw.errors import GuestError, HotplugError, KvmError
from cpufw.kvm import Exit, InternalErrorExit, ShutdownExit, SystemEventExit
from cpufw_x86.crash import death_text
from cpufw_x86.kvm import ClockData
from cpufw_x86.run_end import GUEST_RESET, HOST_RESET, status_of, tell_end
from cpufw_x86.run_gate import RunGate
from cpufw_x86.vcpu import pooled

if TYPE_CHECKING:
    from cpufw.core.machine import Machine
    from cpufw_x86.assist import Assist
    from cpufw_x86.chipset import Chipset
    from cpufw_x86.guest_start import GuestStart
    from cpufw_x86.kvm import X86VM
    from cpufw_x86.memory import GuestRam
    from cpufw_x86.pc_options import PcOptions
    from cpufw_x86.state.board import PcState
    from cpufw_x86.vcpu_thread import VcpuThread

_LAST_WORDS = 1.0  # seconds that the output of a guest that is stopped may take to be read

# A signal that comes when a wait is about to begin is served when that ends: none may be long.
_GLANCE = 1.0

# QMP's type GuestPanicAction.
_PANIC_ACTIONS = {"report": "poweroff", "reset": "run", "pause": "pause", "ignore": "run"}

DIED, TIMED_OUT = 3, 124  # exit statuses; 124 as of timeout(1)

_POWER_OFF = Outcome("power-off", 0, "the guest powered off")
_RESET = Outcome("reset", 0, "the guest reset the machine")
_HOST_RESET = Outcome("reset", 0, "the machine was reset")


class PcRun:
    """What a PC's board does with its guest; the board brings the parts that are declared here."""

    vm: X86VM
    ram: GuestRam
    chipset: Chipset
    assist: Assist
    guest: GuestStart
    state: PcState

    def __init__(self, machine: Machine, options: PcOptions) -> None:
        self.machine, self.options = machine, options
        self.gate = RunGate()
        self.gate.shut()  # until `start`; the threads are there before, to be seen and pinned
        self._threads: dict[int, VcpuThread] = {}
        self._changed = threading.Condition()
        self._telling = threading.RLock()  # held until observers were told of the end
        self._outcome: Outcome | None = None
        self._output_error: BaseException | None = None
        self._started = False
        self._paused = ""  # what it is called, while it is paused
        self.paused_clock = 0
        """Where the guest's clock stands while it is paused, in ns."""
        self._reset_wanted = False
        self._pause_wanted = ""

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
            self.guest.enter(pooled(self.machine.slots[0]).vcpu)

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
            if self._paused and self._outcome is None:
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

        A guest that is paused, powered off, panicked or died then waits to be started. Where the
        guest shall not be rebooted this ends the run.
        """
        if not self.options.reboot:
            if self._outcome is None:
                self.end(_HOST_RESET, HOST_RESET)
            else:
                tell_end(self.machine, _HOST_RESET, HOST_RESET)
            return
        if self._outcome is not None:
            self._revive(self._outcome)
            return
        if not self._started:
            self.machine.notify("RESET", guest=False, reason=HOST_RESET)
            return
        with self.gate.held():
            self._reset(HOST_RESET)
            if self._paused:
                self._paused = "prelaunch"

    def _revive(self, outcome: Outcome) -> None:
        """Reset a guest that has ended; its vCPUs wait at the gate."""
        threads = self._threads.values()
        if outcome.reason in ("migrated", "stopped") or not all(
            thread.thread_id for thread in threads
        ):
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
                    pooled(slot).vcpu.nmi()

    def wait(self, timeout: float | None = None) -> Outcome:
        """Wait until the guest ends, at most `timeout` seconds (outcome `timeout`).

        Raises what the serial sink raised.
        """
        deadline = None if timeout is None else monotonic() + timeout
        patience = self.options.watchdog
        look = monotonic() + patience
        while True:
            with self._changed:
                glance = monotonic() + _GLANCE
                self._changed.wait_for(
                    self._ended, _left(deadline, glance, look if patience else None)
                )
                outcome = self._outcome
            if self._output_error is not None:
                raise self._output_error
            if outcome is not None:
                with self._telling:  # whoever waited may take the observers away
                    pass
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

    # --- what the threads and the devices report -------------------------------------------

    def end(self, outcome: Outcome, cause: str = "") -> None:
        """The run is over: no vCPU enters the guest again, and `wait` returns `outcome`.

        `cause` is QMP's, where the outcome does not tell it.
        """
        with self._telling:
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
            self.on_reset_request()
            return
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
