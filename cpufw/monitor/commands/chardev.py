"""Commands about character devices: what serial ports and monitors lead to."""

from __future__ import annotations

from typing import TypedDict

from cpufw.monitor.command import command
from cpufw.monitor.monitor import Monitor

ChardevInfo = TypedDict("ChardevInfo", {"label": str, "filename": str, "frontend-open": bool})


@command("query-chardev")
def query_chardev(monitor: Monitor) -> list[ChardevInfo]:
    """What each character device leads to: `pty:/dev/pts/3`, `file:PATH`, `unix:PATH,server=on`."""
    return [
        {"label": label, "filename": filename, "frontend-open": True}
        for label, filename in monitor.chardevs.items()
    ]
