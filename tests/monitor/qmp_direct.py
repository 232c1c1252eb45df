"""QMP commands run on a machine of this process, with no socket between."""

from __future__ import annotations

from typing import Any

import cpufw.monitor.commands  # noqa: F401 - registers them
from cpufw.core.machine import Machine
from cpufw.framework import default
from cpufw.monitor.command import COMMANDS
from cpufw.monitor.monitor import Monitor


class Direct:
    """A monitor of `machine`; `events` are those that clients would get."""

    def __init__(self, machine: Machine) -> None:
        self.monitor = Monitor(default(), machine)
        self.events: list[tuple[str, Any]] = []
        self.monitor.subscribe(
            lambda message: self.events.append((message["event"], message.get("data")))
        )

    def run(self, name: str, **arguments: Any) -> Any:
        """The answer to one command; `_` in names of arguments stands for `-`."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        return COMMANDS[name].run(self.monitor, None, named)
