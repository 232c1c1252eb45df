"""HMP on standard input and output, or for one client after another at a socket."""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from cpufw.monitor.hmp.shell import Shell

if TYPE_CHECKING:
    from cpufw.monitor.address import Listener, MonitorAddress
    from cpufw.monitor.monitor import Monitor

PROMPT = "(cpufw) "
_GREETING = "cpufw monitor - type 'help' for more information\n"
_LONGEST_LINE = 1 << 16


class HmpConsole:
    """Serves HMP at `address`, or None for standard input and output, on a thread of its own."""

    def __init__(self, monitor: Monitor, address: MonitorAddress | None = None) -> None:
        self._monitor = monitor
        self.listener: Listener | None = address.listen() if address is not None else None
        self._wake_reader, self._wake_writer = os.pipe()
        serve = self._serve_stdio if self.listener is None else self._serve_socket
        self._thread = threading.Thread(target=serve, name="hmp", daemon=True)

    def start(self) -> None:
        """Let people in."""
        self._thread.start()

    def close(self) -> None:
        """Let them go."""
        os.write(self._wake_writer, b"x")
        # Someone who is asked for a line at a terminal cannot be called off: that thread is left.
        at_terminal = self.listener is None and sys.stdin.isatty()
        if self._thread.is_alive() and not at_terminal:
            self._thread.join()
        if self.listener is not None:
            self.listener.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _run(self, shell: Shell, line: str) -> str:
        """What `line` says; on the worker, so that it comes between QMP's commands."""
        try:
            return self._monitor.worker.submit(shell.run, line).result()
        except (RuntimeError, CancelledError):  # the monitor is closed
            shell.ended = True
            return ""

    def _serve_stdio(self) -> None:
        shell = Shell(self._monitor)
        if sys.stdin.isatty():
            self._serve_terminal(shell)
            return
        out = sys.stdout
        out.write(_GREETING + PROMPT)
        out.flush()
        self._serve_lines(shell, sys.stdin.fileno(), out)

    def _serve_terminal(self, shell: Shell) -> None:
        import readline

        found: list[str] = []

        def complete(_text: str, number: int) -> str | None:
            if number == 0:
                found[:] = shell.completions(readline.get_line_buffer()[: readline.get_endidx()])
            return found[number] + " " if number < len(found) else None

        readline.set_completer(complete)
        readline.set_completer_delims(" \t")
        readline.parse_and_bind("tab: complete")
        print(_GREETING, end="")
        while not shell.ended:
            try:
                line = input(PROMPT)
            except (EOFError, OSError, ValueError):
                return
            print(self._run(shell, line), end="", flush=True)

    def _serve_lines(self, shell: Shell, fd: int, out: TextIO) -> None:
        """Plain lines, until there are no more."""
        data = b""
        while not shell.ended:
            ready, _, _ = select.select([fd, self._wake_reader], [], [])
            if self._wake_reader in ready:
                return
            part = os.read(fd, 4096)
            if not part:
                return
            data += part
            while b"\n" in data and not shell.ended:
                line, _, data = data.partition(b"\n")
                out.write(self._run(shell, line.decode(errors="replace").rstrip("\r")))
                out.write("" if shell.ended else PROMPT)
                out.flush()
            if len(data) > _LONGEST_LINE:
                data = b""
                out.write("line too long\n" + PROMPT)
                out.flush()

    def _serve_socket(self) -> None:
        assert self.listener is not None
        while True:
            waited = [self.listener.socket.fileno(), self._wake_reader]
            if self._wake_reader in select.select(waited, [], [])[0]:
                return
            with suppress(OSError):
                connection, _ = self.listener.socket.accept()
                with connection:
                    self._serve_connection(connection)

    def _serve_connection(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        with connection.makefile("w", encoding="utf-8", newline="\r\n") as out:
            out.write(_GREETING + PROMPT)
            out.flush()
            self._serve_lines(Shell(self._monitor), connection.fileno(), out)
