"""Standard input and output as a guest's terminal."""

from __future__ import annotations

import atexit
import os
import termios
from contextlib import suppress
from typing import Any

from cpufw.chardev.chardev import BREAK
from cpufw.chardev.escape import HELP, EscapeKeys
from cpufw.chardev.fd import FdChardev
from cpufw.chardev.loop import EventLoop

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6  # places in what tcgetattr returns


class RawTerminal:
    """A terminal that passes every key on at once, unechoed, until `restore`.

    Lines that end in a bare newline still start at the left: output processing stays on.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] | None = termios.tcgetattr(fd)
        raw = termios.tcgetattr(fd)
        raw[_IFLAG] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        raw[_OFLAG] |= termios.OPOST
        raw[_CFLAG] = raw[_CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[_LFLAG] &= ~(
            termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG
        )
        raw[_CC][termios.VMIN], raw[_CC][termios.VTIME] = 1, 0
        atexit.register(self.restore)
        termios.tcsetattr(fd, termios.TCSANOW, raw)

    def restore(self) -> None:
        """Give it the modes it had; does nothing the second time."""
        if self._before is not None:
            before, self._before = self._before, None
            atexit.unregister(self.restore)
            with suppress(termios.error):  # it is gone
                termios.tcsetattr(self._fd, termios.TCSANOW, before)


class StdioChardev(FdChardev):
    """`stdio`: the guest's input is standard input, its output standard output.

    A terminal is raw from `start` to `close`, and its escape key is Ctrl-A. A process in the
    background leaves the terminal alone and reads nothing. Input that is no terminal is passed on
    as it is; its end is not the guest's.
    """

    def __init__(self, input_fd: int = 0, output_fd: int = 1) -> None:
        self._is_terminal = os.isatty(input_fd)
        reads = not (self._is_terminal and _in_background(input_fd))
        super().__init__("stdio", input_fd if reads else None, output_fd)
        self._raw: RawTerminal | None = None
        self._keys = EscapeKeys()

    @property
    def has_escape_keys(self) -> bool:
        """Whether Ctrl-A means something."""
        return self._is_terminal and self._input_fd is not None

    def start(self, loop: EventLoop) -> None:
        """Make the terminal raw, and begin to read."""
        if self._is_terminal and self._input_fd is not None:
            self._raw = RawTerminal(self._input_fd)
        super().start(loop)

    def _input_from(self, data: bytes) -> list[bytes | None]:
        if not self._is_terminal:
            return [data]
        items: list[bytes | None] = []
        for part in self._keys.split(data):
            if isinstance(part, bytes):
                items.append(part)
            elif part == "b":
                items.append(BREAK)
            elif part == "h":
                if self._output is not None:
                    self._output.write(HELP)
            else:
                self.on_command(part)
        return items

    def close(self) -> None:
        """Give the terminal its modes back."""
        if self._raw is not None:
            self._raw.restore()
            self._raw = None
        super().close()


def _in_background(terminal: int) -> bool:
    """Whether touching the terminal would stop this process (SIGTTIN, SIGTTOU)."""
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # it does not control this session
        return False
