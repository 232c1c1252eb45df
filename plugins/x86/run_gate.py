"""What lets the vCPUs of a machine run, and holds all of them outside the guest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cpufw.errors import GuestError

if TYPE_CHECKING:
    from cpufw_x86.vcpu_thread import VcpuThread

_PATIENCE = 10.0
"""How long a vCPU may take to leave the guest, in seconds: a device's work, or a host's load."""


class RunGate:
    """Each vCPU's thread passes it on its way into the guest, and waits where it is closed.

    Closing calls all of them out and waits until they are outside. It counts, so what closed it
    twice opens it twice. A thread that closes it must be outside itself.
    """

    def __init__(self) -> None:
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # threads wait here until they may enter
        self._empty = threading.Condition(lock)  # who closes it waits here until all are outside
        self._closed = 0
        self._inside: set[VcpuThread] = set()
        self._one = threading.RLock()

    def enter(self, thread: VcpuThread) -> bool:
        """Wait until `thread` may run the guest; False: it shall end instead."""
        with self._changed:
            self._changed.wait_for(lambda: thread.stopping or not self._closed)
            if thread.stopping:
                return False
            thread.called_out = False
            self._inside.add(thread)
            return True

    def leave(self, thread: VcpuThread) -> None:
        """`thread` is outside."""
        with self._changed:
            self._inside.discard(thread)
            if not self._inside:
                self._empty.notify_all()

    def wake(self) -> None:
        """Make the threads that wait look whether they shall end."""
        with self._changed:
            self._changed.notify_all()

    def shut(self) -> None:
        """Close it without waiting, from any thread: whoever is inside comes out soon."""
        with self._changed:
            self._closed += 1
            for thread in self._inside:
                thread.call_out()

    def close(self, patience: float = _PATIENCE) -> None:
        """Close it, and wait until all are outside.

        Raises `GuestError`, and leaves it as it was, if a vCPU does not come out in `patience`
        seconds; the error says where its thread is.
        """
        self.shut()
        with self._changed:
            if self._empty.wait_for(lambda: not self._inside, patience):
                return
            stuck = "; ".join(thread.where() for thread in self._inside)
        self.open()
        raise GuestError(f"not all vCPUs stop within {patience:g} s: {stuck}")

    def open(self) -> None:
        """Undo one closing."""
        with self._changed:
            self._closed -= 1
            self._changed.notify_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        """All vCPUs are outside in this block; such blocks of several threads follow each other."""
        with self._one:
            self.close()
            try:
                yield
            finally:
                self.open()

    def check(self, patience: float) -> str:
        """Call all out for a moment; who did not come within `patience` seconds, and where it is.

        Empty if all did.
        """
        with self._one:
            try:
                self.close(patience)
            except GuestError as error:
                return str(error)
            self.open()
            return ""
