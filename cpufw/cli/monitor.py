"""`--qmp`: where a management tool drives the guest."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpufw.core.machine import Machine
    from cpufw.framework import Framework


def add_monitor_options(parser: ArgumentParser) -> None:
    """Add `--qmp` and `--paused`."""
    group = parser.add_argument_group("monitor (docs/monitor.md)")
    group.add_argument(
        "--qmp",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="serve QMP at unix:PATH, tcp:HOST:PORT or fd=N (a listening socket); may be repeated",
    )
    group.add_argument(
        "--paused", action="store_true", help="do not start the guest: the monitor's cont does"
    )


@contextmanager
def monitored(framework: Framework, machine: Machine, options: Namespace) -> Iterator[None]:
    """In this block the monitor that the options ask for serves `machine`, if they ask for one."""
    if not options.qmp:
        yield
        return
    from cpufw.monitor.address import MonitorAddress
    from cpufw.monitor.monitor import Monitor
    from cpufw.monitor.server import QmpServer

    monitor = Monitor(framework, machine)
    server = QmpServer(monitor, [MonitorAddress.parse(text) for text in options.qmp])
    server.start()
    try:
        yield
    finally:
        server.close()
        monitor.close()
