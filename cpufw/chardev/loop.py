"""One thread that waits for all descriptors and timers of a machine's character devices."""

from __future__ import annotations

import heapq
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from math import ceil
from time import monotonic

POLLIN, POLLOUT, POLLHUP = select.POLLIN, select.POLLOUT, select.POLLHUP


class EventLoop:
    """Calls back, on its own thread, when a descriptor is ready or a time has come.

    `call_soon`, `start` and `close` may be called by any thread; the others by the callbacks, or
    before `start`. What a callback raises goes to `on_error`, and the loop goes on.
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._on_error = on_error
        self._poll = select.poll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._soon: deque[Callable[[], None]] = deque()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._calls = 0
        self._closing = False
        self._closing_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake, POLLIN)

    def start(self) -> None:
        """Let the thread run; does nothing the second time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="chardev", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread; descriptors that were watched stay open."""
        with self._closing_lock:
            if self._closing:
                return
            self._closing = True
            os.eventfd_write(self._wake, 1)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        os.close(self._wake)

    @property
    def on_own_thread(self) -> bool:
        """Whether the caller is one of its callbacks."""
        return threading.current_thread() is self._thread

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(revents)` whenever `fd` is ready for `events` (poll(2)), or broken.

        A second call for `fd` takes the place of the first.
        """
        self._callbacks[fd] = callback
        self._poll.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; nothing if it was not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call it on the loop's thread; never, once the loop is closed."""
        self._soon.append(callback)
        with self._closing_lock:
            if not self._closing:
                os.eventfd_write(self._wake, 1)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call it once after that time."""
        self._calls += 1
        heapq.heappush(self._later, (monotonic() + seconds, self._calls, callback))

    def _run(self) -> None:
        while not self._closing:
            for fd, revents in self._poll.poll(self._patience()):
                if fd == self._wake:
                    os.eventfd_read(fd)
                elif fd in self._callbacks:
                    self._call(self._callbacks[fd], revents)
            while self._soon and not self._closing:
                self._call(self._soon.popleft())
            while self._later and self._later[0][0] <= monotonic() and not self._closing:
                self._call(heapq.heappop(self._later)[2])

    def _patience(self) -> int | None:
        """Milliseconds until the next timer."""
        if not self._later:
            return None
        return max(0, ceil((self._later[0][0] - monotonic()) * 1000))

    def _call(self, callback: Callable[..., None], *arguments: int) -> None:
        try:
            callback(*arguments)
        except Exception as error:
            self._on_error(error)
