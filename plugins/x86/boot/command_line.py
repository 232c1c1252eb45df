"""The kernel command line."""

from __future__ import annotations

import os

from cpufw.errors import UsageError
from cpufw_x86.boot.layout import Segment
from cpufw_x86.memory_map import COMMAND_LINE

LONGEST_COMMAND_LINE = len(COMMAND_LINE) - 1


def command_line(text: str, name: str, limit: int = LONGEST_COMMAND_LINE) -> Segment:
    """`text` with a zero byte at its end, at COMMAND_LINE.

    `limit` is how many bytes the kernel that is called `name` takes. Raises `UsageError` if it is
    longer.
    """
    line = os.fsencode(text)
    limit = min(limit, LONGEST_COMMAND_LINE)
    if len(line) > limit:
        raise UsageError(f"the command line has {len(line)} bytes, but {name} takes {limit}")
    if b"\0" in line:
        raise UsageError("the command line has a zero byte in it, where it would end")
    return Segment.of(COMMAND_LINE.start, line + b"\0", "the command line")
