"""The QMP commands, a module a subject; importing this package registers them all."""

from cpufw.monitor.commands import (
    absent,
    block,
    chardev,
    control,
    cpufw,
    cpus,
    fds,
    human,
    machines,
    memory,
    migration,
    models,
    objects,
    qom,
    run,
    stats,
)

__all__ = [
    "absent",
    "block",
    "chardev",
    "control",
    "cpufw",
    "cpus",
    "fds",
    "human",
    "machines",
    "memory",
    "migration",
    "models",
    "objects",
    "qom",
    "run",
    "stats",
]
