"""The thread that runs one vCPU and serves what its guest asks."""

from __future__ import annotations

import _thread
import os
import sys
import traceback
from collections.abc import Callable
from time import sleep
from typing import TYPE_CHECKING

from cpufw.errors import AcceleratorError
from cpufw.kvm import (
    Exit,
    FailEntryExit,
    HltExit,
    InternalErrorExit,
    Interrupted,
    IoExit,
    MmioExit,
    OutputReady,
    ShutdownExit,
    SystemEventExit,
)
from cpufw.kvm.native import lib
from cpufw_x86.assist import Assist
from cpufw_x86.devices import MmioBus, PortBus
from cpufw_x86.kvm.exits import HypervExit, IoapicEoiExit, MsrExit
from cpufw_x86.run_gate import RunGate
from cpufw_x86.vcpu import PooledVcpu

if TYPE_CHECKING:
    from cpufw.core.hotplug import Slot


_SHUT_DOWN, _RESET = lib.KVM_SYSTEM_EVENT_SHUTDOWN, lib.KVM_SYSTEM_EVENT_RESET
_CRASH = lib.KVM_SYSTEM_EVENT_CRASH
_STACK = 1 << 20  # of a thread, in bytes; by default a thousand of them would reserve 8 GiB


class VcpuThread:
    """Runs the vCPU of `slot` until it is stopped or its guest dies.

    `on_alive` is called at the first exit that only running guest code can cause, `on_output` when
    serial output waits, `on_death(thread, reason, exit)` when the guest cannot go on, and
    `on_outside` whenever the vCPU was called out of the guest, before it may enter again;
    `on_eoi` with a vector whose end a user-space I/O APIC waits for.
    """

    def __init__(
        self,
        slot: Slot,
        pooled: PooledVcpu,
        ports: PortBus,
        memory: MmioBus,
        assist: Assist,
        gate: RunGate,
        *,
        on_alive: Callable[[Slot], None],
        on_output: Callable[[], None],
        on_death: Callable[[VcpuThread, str, Exit | None], None],
        on_outside: Callable[[], None],
        on_eoi: Callable[[int], None],
    ) -> None:
        self.slot, self.pooled, self.vcpu = slot, pooled, pooled.vcpu
        self.stopping = False
        self.native_id: int | None = None
        """The kernel's number of the thread, while it runs."""
        self._ports, self._memory, self._assist, self._gate = ports, memory, assist, gate
        self._on_alive, self._on_output, self._on_death = on_alive, on_output, on_death
        self._on_outside, self._on_eoi = on_outside, on_eoi
        self.called_out = self._alive = False
        self._affinity: frozenset[int] = frozenset()
        self._ident: int | None = None  # the thread's, once it was started
        self._running = _thread.allocate_lock()  # held while the thread runs

    def start(self) -> None:
        """Begin to run soon."""
        self.pooled.has_run = True
        self.vcpu.announce_access()  # else a guest that only prints would never seem alive
        # threading.Thread.start() would wait until the new thread runs, and the plug with it.
        self._running.acquire()
        before = _thread.stack_size(_STACK)
        try:
            self._ident = _thread.start_new_thread(self._main, ())
        except RuntimeError:
            self._running.release()
            raise AcceleratorError(
                f"vCPU {self.slot.index} gets no thread: this system or this user has as many as "
                "it may (ulimit -u, pids.max of the cgroup)"
            ) from None
        finally:
            _thread.stack_size(before)

    def call_out(self) -> None:
        """Make the vCPU leave the guest soon; it comes back when the gate lets it."""
        self.called_out = True
        self.vcpu.kick()

    def request_stop(self) -> None:
        """Make the thread end soon; `join` waits for it."""
        self.stopping = True
        self.call_out()
        self._gate.wake()

    def join(self) -> None:
        """Wait until the thread has ended; nothing to wait for on that thread itself."""
        if self._ident not in (None, _thread.get_ident()):
            with self._running:
                pass

    @property
    def thread_id(self) -> int:
        """The kernel's number of the thread; 0 once it has ended."""
        while self.native_id is None and self._running.locked():
            sleep(0)  # it was started a moment ago
        return self.native_id or 0

    def pin(self, host_cpus: frozenset[int]) -> None:
        """Let the thread run on these CPUs of the host only. Raises OSError."""
        self._affinity = host_cpus
        if self.native_id is not None:
            os.sched_setaffinity(self.native_id, host_cpus)

    def where(self) -> str:
        """Where the thread is, in words."""
        frame = sys._current_frames().get(self._ident or 0)
        if frame is None or self.vcpu.running:
            return f"vCPU {self.slot.index} is in KVM_RUN"
        place = traceback.extract_stack(frame)[-1]
        return f"vCPU {self.slot.index} is in {place.name} ({place.filename}:{place.lineno})"

    def _main(self) -> None:
        self.native_id = _thread.get_native_id()
        try:
            if self._affinity:
                os.sched_setaffinity(self.native_id, self._affinity)
            while self._gate.enter(self):
                try:
                    self._loop()
                finally:
                    self._gate.leave(self)
                self._on_outside()
        except Exception as error:  # a device or the kernel failed: the guest cannot go on
            self._on_death(self, f"{type(error).__name__}: {error}", None)
        finally:
            self.native_id = None
            self._running.release()

    def _loop(self) -> None:
        """Run until the vCPU is called out; an access that was under way is finished then."""
        run, read, write = self.vcpu.run, self._ports.read, self._ports.write
        alive = self._alive
        while True:
            exit = run()
            kind = type(exit)
            if kind is IoExit:
                # The hot path: a device's answer costs the guest one round trip through here.
                if exit.count == 1:  # type: ignore[attr-defined]
                    if exit.is_in:  # type: ignore[attr-defined]
                        exit.value = read(exit.port, exit.size)  # type: ignore[attr-defined]
                    else:
                        write(exit.port, exit.size, exit.value)  # type: ignore[attr-defined]
                else:
                    self._string_io(exit)  # type: ignore[arg-type]
            elif kind is MmioExit:
                self._memory_access(exit)  # type: ignore[arg-type]
            elif kind is Interrupted:
                if self.called_out or self.stopping:
                    return
                continue
            elif kind is OutputReady:
                self._on_output()
            elif not self._assisted(exit):
                reason = _reason(exit)
                if reason:
                    self._on_death(self, reason, exit)
                    return
            if not alive:
                alive = self._alive = True
                self._on_alive(self.slot)

    def _assisted(self, exit: Exit) -> bool:
        if isinstance(exit, IoapicEoiExit):
            self._on_eoi(exit.vector)
            return True
        if isinstance(exit, InternalErrorExit):
            return self._assist.finish(self.vcpu, exit)
        if isinstance(exit, HypervExit):
            return True  # it answers by itself
        return isinstance(exit, MsrExit) and self._assist.on_msr(self.vcpu, exit)

    def _memory_access(self, exit: MmioExit) -> None:
        if self._assist.on_mmio(self.vcpu, exit):
            return
        if exit.is_write:
            self._memory.write(exit.address, exit.length, exit.value)
        else:
            exit.value = self._memory.read(exit.address, exit.length)

    def _string_io(self, exit: IoExit) -> None:
        size, data = exit.size, bytearray(exit.data)
        for start in range(0, size * exit.count, size):
            if exit.is_in:
                value = self._ports.read(exit.port, size)
                data[start : start + size] = value.to_bytes(size, "little")
            else:
                value = int.from_bytes(data[start : start + size], "little")
                self._ports.write(exit.port, size, value)
        if exit.is_in:
            exit.data = bytes(data)


def _reason(exit: Exit) -> str:
    """Why the guest cannot go on after `exit`; empty if it can."""
    match exit:
        case ShutdownExit():
            return "triple fault"
        case InternalErrorExit(suberror=suberror, instruction=code):
            if exit.is_emulation_failure:
                shown = f": {code.hex(' ')}" if code else ""
                return f"KVM cannot emulate the instruction at rip{shown}"
            return f"KVM internal error, suberror {suberror}"
        case FailEntryExit(reason=reason):
            return f"KVM cannot enter the guest, hardware reason {reason:#x}"
        case SystemEventExit(type=kind):
            names = {_SHUT_DOWN: "", _RESET: "reset", _CRASH: "crash"}
            return names.get(kind, f"system event {kind}")
        case HltExit():
            return ""
    return f"an exit that cpufw does not serve: {exit!r}"
