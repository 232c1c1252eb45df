"""One vCPU: its run loop and what every architecture's vCPU has."""

from __future__ import annotations

import errno
import os

from cpufw.errors import KvmError

from .exits import (
    Exit,
    FailEntryExit,
    HltExit,
    InternalErrorExit,
    Interrupted,
    IoExit,
    IrqWindowExit,
    MmioExit,
    OtherExit,
    OutputReady,
    ShutdownExit,
    SystemEventExit,
)
from .failure import kvm_error
from .handle import Handle
from .native import ffi, lib

TYPE_CHECKING = False  # importing typing would take longer than the whole package
if TYPE_CHECKING:
    from typing import Any

    from .vm import VM

_IO: int = lib.KVM_EXIT_IO
_ALL_ONES = tuple((1 << 8 * size) - 1 for size in range(9))


class VCPU(Handle):
    """A vCPU of a VM. All but `kick` and `close` belong to the thread that runs it."""

    def __init__(self, vm: VM, id: int, fd: int) -> None:
        super().__init__(fd, f"vCPU {id}")
        self.vm = vm
        self.id = id
        self._pending: Any = None  # the last exit, while it waits for its answer
        vcpu = lib.cpufw_vcpu_open(fd, vm.vcpu_mmap_size, vm._bus)
        if not vcpu:
            error = ffi.errno
            os.close(fd)
            self._fd = -1
            raise kvm_error("mmap", error, f"the run page of vCPU {id}")
        self._vcpu = ffi.gc(vcpu, lib.cpufw_vcpu_free)
        self._exit = ffi.addressof(vcpu, "exit")
        self._run = lib.cpufw_vcpu_run

    def run(self) -> Exit:
        """Run the guest until Python is needed, and say why (KVM_RUN).

        The GIL is free meanwhile. The answer to a read must be set in the exit returned before
        calling `run` again. After a `kick`, `run` finishes a pending access and returns
        `Interrupted`: do that before reading registers to save them.
        """
        pending = self._pending
        if pending is not None:
            self._pending = None
            pending._answer(self)
        reason: int = self._run(self._vcpu)
        if reason != _IO:
            return self._decode(reason)
        data = self._exit
        size, count = data.size, data.count
        items = ffi.buffer(data.data, size * count) if count > 1 else None
        if data.is_write:
            return IoExit(data.port, size, count, False, data.value, items)
        answer = _ALL_ONES[size]
        io = IoExit(data.port, size, count, True, answer, items)
        if items is None:
            self._pending = io
        else:
            items[:] = b"\xff" * len(items)
        return io

    def kick(self) -> None:
        """Make the run under way, or else the next one, return `Interrupted`. Any thread.

        Kicks that come before that return count as one. On a closed vCPU it does nothing.
        """
        error = lib.cpufw_vcpu_kick(self._vcpu)
        if error:
            raise kvm_error("pthread_kill", -error, self.name)

    @property
    def running(self) -> bool:
        """Whether a thread is in `run` now."""
        return bool(self._vcpu.running)

    def announce_access(self) -> None:
        """Make the next access that C serves return `OutputReady` too: the guest runs here.

        Call it while the vCPU does not run.
        """
        self._vcpu.announce = 1

    @property
    def immediate_exit(self) -> bool:
        """While set, each `run` only finishes the pending access and returns `Interrupted`."""
        return bool(self._vcpu.hold_immediate_exit)

    @immediate_exit.setter
    def immediate_exit(self, on: bool) -> None:
        lib.cpufw_vcpu_hold_immediate_exit(self._vcpu, on)

    @property
    def run_page(self) -> Any:
        """The `struct kvm_run` shared with the kernel, a cffi pointer good until `close`."""
        if self._fd < 0:
            raise self._closed_error()
        return self._vcpu.run

    def get_mp_state(self) -> int:
        """Whether it runs, waits or halts: a KVM_MP_STATE_* (KVM_GET_MP_STATE)."""
        state = ffi.new("struct kvm_mp_state *")
        self.ioctl("KVM_GET_MP_STATE", lib.KVM_GET_MP_STATE, state)
        return int(state.mp_state)

    def set_mp_state(self, mp_state: int) -> None:
        """Make it run, wait or halt (KVM_SET_MP_STATE)."""
        state = ffi.new("struct kvm_mp_state *", {"mp_state": mp_state})
        self.ioctl("KVM_SET_MP_STATE", lib.KVM_SET_MP_STATE, state)

    def close(self) -> None:
        """Unmap the run page and close; does nothing the second time.

        The kernel keeps the vCPU itself as long as its VM. Raises KvmError while it runs.
        """
        if self._fd < 0:
            return
        if lib.cpufw_vcpu_close(self._vcpu):
            raise KvmError(
                f"{self.name} runs in another thread: kick it and join that thread, then close"
            )
        self._fd = -1

    def _decode(self, reason: int) -> Exit:
        """The typed exit for `reason`, a KVM_EXIT_* or one of run.h; negative: an errno."""
        data = self._exit
        match reason:
            case lib.KVM_EXIT_MMIO:
                length = data.size
                is_write = bool(data.is_write)
                value = data.value if is_write else _ALL_ONES[length]
                mmio = MmioExit(data.address, length, is_write, value)
                if not is_write:
                    self._pending = mmio
                return mmio
            case lib.CPUFW_EXIT_INTERRUPTED:
                return Interrupted(bool(data.kicked))
            case lib.CPUFW_EXIT_OUTPUT_READY:
                return OutputReady(self.vm._uarts.get(data.code))
            case lib.KVM_EXIT_HLT:
                return HltExit()
            case lib.KVM_EXIT_SHUTDOWN:
                return ShutdownExit()
            case lib.KVM_EXIT_IRQ_WINDOW_OPEN:
                return IrqWindowExit()
            case lib.KVM_EXIT_FAIL_ENTRY:
                return FailEntryExit(data.value, data.code)
            case lib.KVM_EXIT_INTERNAL_ERROR:
                instruction = bytes(data.insn)[: data.insn_size]
                return InternalErrorExit(data.code, self._words(), instruction)
            case lib.KVM_EXIT_SYSTEM_EVENT:
                return SystemEventExit(data.code, self._words())
        if reason < 0:
            raise self._run_error(-reason)
        return OtherExit(reason, exit_name(reason))

    def _words(self) -> tuple[int, ...]:
        return tuple(self._exit.words[0 : self._exit.ndata])

    def _run_error(self, error: int) -> KvmError:
        if self._fd < 0:
            return self._closed_error("KVM_RUN")
        if error == errno.EBUSY:
            return KvmError(f"{self.name} runs in another thread already", "KVM_RUN", error)
        return kvm_error("KVM_RUN", error, self.name)


def exit_name(reason: int) -> str:
    """The kernel's KVM_EXIT_* name of an exit reason."""
    names = [name for name in dir(lib) if name.startswith("KVM_EXIT_")]
    for name in names:
        # KVM_EXIT_IO_OUT and the like are details of KVM_EXIT_IO, not reasons.
        if getattr(lib, name) == reason and not any(
            name.startswith(f"{other}_") for other in names
        ):
            return name
    return f"KVM_EXIT_{reason} (not in the kernel headers that cpufw was built with)"
