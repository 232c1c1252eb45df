"""The thread that runs one vCPU and serves what its guest asks."""

from __future__ import annotations

import _thread
from collections.abc import Callable
from typing import TYPE_CHECKING

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
from cpufw_x86.devices import PortBus
from cpufw_x86.vcpu import PooledVcpu

if TYPE_CHECKING:
    from cpufw.core.hotplug import Slot


class VcpuThread:
    """Runs the vCPU of `slot` until it is stopped or its guest dies.

    `on_alive` is called at the first exit that only running guest code can cause, `on_output` when
    serial output waits, `on_death(thread, reason, exit)` when the guest cannot go on.
    """

    def __init__(
        self,
        slot: Slot,
        pooled: PooledVcpu,
        bus: PortBus,
        *,
        on_alive: Callable[[Slot], None],
        on_output: Callable[[], None],
        on_death: Callable[[VcpuThread, str, Exit | None], None],
    ) -> None:
        self.slot, self.pooled, self.vcpu = slot, pooled, pooled.vcpu
        self._bus = bus
        self._on_alive, self._on_output, self._on_death = on_alive, on_output, on_death
        self._stopping = False
        self._ident: int | None = None  # the thread's, once it was started
        self._running = _thread.allocate_lock()  # held while the thread runs

    def start(self) -> None:
        """Begin to run soon."""
        self.pooled.has_run = True
        self.vcpu.announce_access()  # else a guest that only prints would never seem alive
        # threading.Thread.start() would wait until the new thread runs, and the plug with it.
        self._running.acquire()
        self._ident = _thread.start_new_thread(self._main, ())

    def request_stop(self) -> None:
        """Make the vCPU leave the guest soon; `join` waits for it."""
        self._stopping = True
        self.vcpu.kick()

    def join(self) -> None:
        """Wait until the vCPU has left the guest; nothing to wait for on its own thread."""
        if self._ident not in (None, _thread.get_ident()):
            with self._running:
                pass

    def _main(self) -> None:
        try:
            self._loop()
        except Exception as error:  # a device or the kernel failed: the guest cannot go on
            self._on_death(self, f"{type(error).__name__}: {error}", None)
        finally:
            self._running.release()

    def _loop(self) -> None:
        run, read, write = self.vcpu.run, self._bus.read, self._bus.write
        alive = False
        while not self._stopping:
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
            elif kind is Interrupted:
                continue
            elif kind is OutputReady:
                self._on_output()
            elif kind is not MmioExit:  # nothing is at that address: reads are all ones
                reason = _reason(exit)
                if reason:
                    self._on_death(self, reason, exit)
                    return
            if not alive:
                alive = True
                self._on_alive(self.slot)

    def _string_io(self, exit: IoExit) -> None:
        size, data = exit.size, bytearray(exit.data)
        for start in range(0, size * exit.count, size):
            if exit.is_in:
                value = self._bus.read(exit.port, size)
                data[start : start + size] = value.to_bytes(size, "little")
            else:
                value = int.from_bytes(data[start : start + size], "little")
                self._bus.write(exit.port, size, value)
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
            names = {lib.KVM_SYSTEM_EVENT_SHUTDOWN: "", lib.KVM_SYSTEM_EVENT_RESET: ""}
            return names.get(kind, f"system event {kind}")
        case HltExit():
            return ""
    return f"an exit that cpufw does not serve: {exit!r}"
