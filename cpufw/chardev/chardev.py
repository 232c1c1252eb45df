"""What all character devices are, and those that lead nowhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from cpufw.chardev.loop import EventLoop

BREAK = None  # among input: the line's break, which is no character


def _take_all(data: bytes) -> int:
    return len(data)


class Chardev:
    """The host's end of a serial line, made by `parse_chardev`; closed by `with` or `close`.

    Set the callbacks, then `start` it with the loop whose thread calls them:

    `on_input(data)` returns how many of the bytes it took; the rest is offered again after
    `resume_input`, and nothing more is read meanwhile. `on_break()` is asked likewise, and returns
    whether it took it. `on_writable()` tells that `write` may take more than it did the last
    time. `on_command(key)` is told the keys that ask something of the machine: `x` to end it,
    `c` for the monitor.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        """What it was made from, with what came out of that: `pty:/dev/pts/3`."""
        self.on_input: Callable[[bytes], int] = _take_all
        self.on_break: Callable[[], bool] = lambda: True
        self.on_writable: Callable[[], None] = lambda: None
        self.on_command: Callable[[str], None] = lambda _key: None
        self._loop: EventLoop | None = None
        self._input: deque[bytes | None] = deque()  # what nobody had room for

    def start(self, loop: EventLoop) -> None:
        """Begin to pass on input."""
        self._loop = loop

    def write(self, data: bytes) -> int:
        """Pass output on without waiting; returns how many of the bytes were taken.

        Fewer than all: `on_writable` will be called. Calls must not overlap. Raises OSError or
        CpufwError when nothing can ever be written again.
        """
        raise NotImplementedError

    def resume_input(self) -> None:
        """Offer what was not taken, and then read on. Any thread."""
        if self._loop is not None:
            self._loop.call_soon(self._offer)

    def inject(self, data: bytes) -> None:
        """Pass `data` on as if it had come from the host's end, behind what waits. Any thread."""
        if self._loop is not None:
            self._loop.call_soon(lambda: self._deliver(data))

    def close(self) -> None:
        """Give back what it holds, and the terminal's modes; does nothing the second time.

        The loop must have been closed before.
        """
        self._loop = None

    def __enter__(self) -> Chardev:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for those that have input, on the loop's thread ----------------------------------

    def _deliver(self, *items: bytes | None) -> None:
        """Offer bytes, or BREAK, behind those that wait."""
        self._input.extend(items)
        self._offer()

    def _offer(self) -> None:
        while self._input:
            item = self._input[0]
            if item is BREAK:
                if not self.on_break():
                    break
                self._input.popleft()
                continue
            taken = self.on_input(item)
            if taken < len(item):
                self._input[0] = item[taken:]
                break
            self._input.popleft()
        self._read_on(not self._input)

    def _read_on(self, on: bool) -> None:
        """Read input, or leave it where it is."""


class NullChardev(Chardev):
    """`none`: output vanishes, and there is no input."""

    def __init__(self) -> None:
        super().__init__("none")

    def write(self, data: bytes) -> int:
        """Take it all."""
        return len(data)


class SinkChardev(Chardev):
    """Output goes to a function; there is no input."""

    def __init__(self, sink: Callable[[bytes], object]) -> None:
        super().__init__("sink")
        self._sink = sink

    def write(self, data: bytes) -> int:
        """Call the function, on whatever thread this is."""
        self._sink(data)
        return len(data)
