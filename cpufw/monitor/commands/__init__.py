"""The QMP commands, a module a subject; importing this package registers them all."""

from cpufw.monitor.commands import (
    absent,
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
)

__all__ = [
    "absent",
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
]
