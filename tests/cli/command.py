"""The `cpufw` command as a user's shell runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

UNWANTED = ("PYTHONUNBUFFERED", "COLUMNS", "LINES", "NO_COLOR", "TERM")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "cpufw", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    return kept | {"TERM": "xterm"} | changes


def cpufw(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run it in a pipe; `changes` go into its environment."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(**changes),
        check=False,
    )


def sentence(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line on standard error of a command that failed with `status`."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("cpufw: ")
    assert done.stderr.endswith("\n")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr[len("cpufw: ") : -1]


def on_a_terminal(*arguments: str, columns: int = 80, **changes: str) -> str:
    """What it shows on a terminal that is `columns` wide; standard error too."""
    import fcntl
    import pty
    import struct
    import termios

    main, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        command(*arguments), stdout=its, stderr=its, env=environment(**changes)
    ) as process:
        os.close(its)
        shown = b""
        while True:
            try:
                data = os.read(main, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not data:
                break
            shown += data
        process.wait(100)
    os.close(main)
    return shown.decode().replace("\r\n", "\n")
