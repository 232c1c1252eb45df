"""The monitor of one machine: what commands act on, and events to every client."""

from __future__ import annotations

import threading
import time
import uuid as uuid_module
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cpufw.monitor.events import HotplugEvents
from cpufw.monitor.fdsets import FdSets

if TYPE_CHECKING:
    from cpufw.core.machine import Machine
    from cpufw.framework import Framework
    from cpufw.monitor.outgoing import OutgoingMigration
    from cpufw.monitor.type_tree import TypeTree

Listener = Callable[[Mapping[str, Any]], None]


class Monitor:
    """What QMP and HMP clients share: the machine, and a stream of events.

    Its methods may be called by any thread. `name` and `uuid` are the guest's, as the user gave
    them. `worker` runs commands that wait for the
    guest or a disk, one after another.
    """

    def __init__(
        self, framework: Framework, machine: Machine, name: str = "", uuid: str = ""
    ) -> None:
        self.framework, self.machine = framework, machine
        self.name = name
        self.uuid = uuid or str(uuid_module.UUID(int=0))
        self.fdsets = FdSets()
        self.chardevs: dict[str, str] = {}
        """What the character devices lead to, by their labels."""
        self.migration_capabilities: frozenset[str] = frozenset()
        self.migration: OutgoingMigration | None = None
        """The last one that `migrate` began."""
        self.ended = threading.Event()
        """Set by `quit`."""
        self.worker = ThreadPoolExecutor(1, "monitor-worker", self._on_worker_start)
        self._worker_ident = 0
        self._listeners: list[Listener] = []
        self._hotplug = HotplugEvents(machine, self.emit)
        self._forget = machine.subscribe(self._hotplug.on_event)
        machine.observers.append(self._on_run_event)

    @cached_property
    def types(self) -> TypeTree:
        """The types of objects that there are."""
        from cpufw.monitor.type_tree import TypeTree

        return TypeTree(self.framework, self.machine)

    def _on_worker_start(self) -> None:
        self._worker_ident = threading.get_ident()

    @property
    def on_worker(self) -> bool:
        """Whether this is called by a command that `worker` runs."""
        return threading.get_ident() == self._worker_ident

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every event, on the thread that it happens on; returns the end."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def emit(self, event: str, data: Mapping[str, Any] | None = None) -> None:
        """Tell every client that `event` happened, now."""
        seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        stamp = {"seconds": seconds, "microseconds": microseconds}
        message: dict[str, Any] = {"timestamp": stamp, "event": event}
        if data:
            message["data"] = data
        for listener in tuple(self._listeners):
            listener(message)

    def _on_run_event(self, event: str, data: Mapping[str, Any]) -> None:
        self.emit(event, self._hotplug.ost(data) if event == "ACPI_DEVICE_OST" else data)

    def close(self) -> None:
        """Hear no more of the machine, and finish what is under way."""
        self._forget()
        self.machine.observers.remove(self._on_run_event)
        if self.migration is not None:
            self.migration.close()
        self.worker.shutdown()
        self.fdsets.close()
