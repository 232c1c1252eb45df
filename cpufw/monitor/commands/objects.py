"""Commands that make and delete objects of `/objects`."""

from __future__ import annotations

from typing import Any

from cpufw.monitor import objects
from cpufw.monitor.command import command
from cpufw.monitor.monitor import Monitor


@command("object-add")
def object_add(monitor: Monitor, qom_type: str, id: str, **properties: Any) -> None:
    """Make an object: a socket for a link of the machine, or one that holds what it is given."""
    objects.object_add(monitor.machine, qom_type, id, properties)


@command("object-del")
def object_del(monitor: Monitor, id: str) -> None:
    """Delete an object that nothing uses."""
    objects.object_del(monitor.machine, id)
