"""The thread in which a device does its work, so that no vCPU waits for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Worker:
    """Calls `work` again and again while it returns True, each time after it was kicked.

    Writing to `eventfd` is a kick: KVM does it for a guest by itself (ioeventfd). Between two
    calls the worker can be held. `work` must not raise.
    """

    def __init__(self, name: str, work: Callable[[], bool]) -> None:
        self.eventfd = os.eventfd(0, os.EFD_CLOEXEC)
        self._work = work
        self._changed = threading.Condition()
        self._holders = 0
        self._busy = self._stopping = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Begin to answer kicks."""
        self._thread.start()

    def kick(self) -> None:
        """Have the work looked at soon; from any thread, and nothing once it is closed."""
        with self._changed:
            if self.eventfd >= 0:
                os.eventfd_write(self.eventfd, 1)

    def hold(self) -> None:
        """Wait for the call under way; there is no other until as many `release`s."""
        with self._changed:
            self._holders += 1
            self._changed.wait_for(lambda: not self._busy)

    def release(self) -> None:
        """Let it go on."""
        with self._changed:
            self._holders -= 1
            self._changed.notify_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for a block."""
        self.hold()
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        """End the thread, after the call under way; does nothing the second time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self.kick()
        if self._thread.ident is not None:
            self._thread.join()
        with self._changed:
            if self.eventfd >= 0:
                os.close(self.eventfd)
            self.eventfd = -1

    def _main(self) -> None:
        while True:
            os.eventfd_read(self.eventfd)
            while self._call():
                pass
            if self._stopping:
                return

    def _call(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: not self._holders or self._stopping)
            if self._stopping:
                return False
            self._busy = True
        more = False
        try:
            more = self._work()
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        return more
