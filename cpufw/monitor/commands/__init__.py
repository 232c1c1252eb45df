"""The QMP commands, a module a subject; importing this package registers them all."""

from cpufw.monitor.commands import control, cpus, run

__all__ = ["control", "cpus", "run"]
