"""HMP's commands through QMP."""

from __future__ import annotations

from cpufw.monitor.command import command
from cpufw.monitor.monitor import Monitor


@command("human-monitor-command", blocks=True, features=("savevm-monitor-nodes",))
def human_monitor_command(monitor: Monitor, command_line: str, cpu_index: int | None = None) -> str:
    """What a line of HMP says; with `cpu-index` it looks at that CPU."""
    from cpufw.monitor.hmp.shell import Shell

    return Shell(monitor, cpu_index).run(command_line).replace("\n", "\r\n")
