"""`--qmp` and `--hmp`: where management tools and people drive the guest."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from cpufw.cli.output import say, warn
from cpufw.errors import UsageError

if TYPE_CHECKING:
    from cpufw.core.machine import Machine
    from cpufw.framework import Framework
    from cpufw.monitor.address import Listener
    from cpufw.monitor.greeter import Greeter
    from cpufw.monitor.monitor import Monitor


def add_monitor_options(parser: ArgumentParser) -> None:
    """Add `--qmp`, `--hmp` and `--paused`."""
    group = parser.add_argument_group("monitor (docs/monitor.md)")
    group.add_argument(
        "--qmp",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="serve QMP at unix:PATH, tcp:HOST:PORT or fd=N (a listening socket); may be repeated",
    )
    group.add_argument(
        "--hmp",
        action="append",
        default=[],
        metavar="WHERE",
        help="serve HMP, the monitor for people, on stdio, or as lines at unix:PATH or "
        "tcp:HOST:PORT; may be repeated",
    )
    group.add_argument(
        "--paused", action="store_true", help="do not start the guest: the monitor's cont does"
    )


@contextmanager
def greeted(options: Namespace) -> Iterator[Greeter | None]:
    """In this block QMP clients can connect already; `monitored` serves them."""
    if not options.qmp:
        yield None
        return
    from cpufw.monitor.address import MonitorAddress
    from cpufw.monitor.greeter import Greeter

    greeter = Greeter([MonitorAddress.parse(text) for text in options.qmp])
    try:
        yield greeter
    finally:
        greeter.close()


@contextmanager
def monitored(
    framework: Framework, machine: Machine, options: Namespace, greeter: Greeter | None
) -> Iterator[Monitor | None]:
    """In this block the monitor that the options ask for serves `machine`, if they ask for one."""
    if not options.qmp and not options.hmp:
        yield None
        return
    from cpufw.cli import Terminated
    from cpufw.monitor.address import MonitorAddress
    from cpufw.monitor.hmp.console import HmpConsole
    from cpufw.monitor.monitor import Monitor
    from cpufw.monitor.server import QmpServer

    with ExitStack() as last_first:
        monitor = Monitor(framework, machine)
        last_first.callback(monitor.close)
        try:  # from the first client on
            if greeter is not None:
                server = QmpServer(monitor, greeter)
                last_first.callback(server.close)
                for listener in server.listeners:
                    _say_place("QMP", listener)
                server.start()
            for text in options.hmp:
                address = None if text == "stdio" else MonitorAddress.parse(text)
                console = HmpConsole(monitor, address)
                last_first.callback(console.close)
                if console.listener is not None:
                    _say_place("HMP", console.listener)
                console.start()
            yield monitor
        except (KeyboardInterrupt, Terminated):
            monitor.emit("SHUTDOWN", {"guest": False, "reason": "host-signal"})
            raise


def _say_place(what: str, listener: Listener) -> None:
    if listener.reachable:
        warn(
            f"{what} at {listener.address}: whoever reaches this port can do anything to the guest"
        )
    else:
        say(f"{what} at {listener.address}")


def check_monitor(options: Namespace) -> None:
    """Raise `UsageError` where the monitor and a serial port both want standard input."""
    places = [place for place in options.hmp if place == "stdio"]
    if len(places) > 1:
        raise UsageError("--hmp stdio is given twice")
    serial = options.serial or ["stdio"]
    wants = [text for text in (*serial, options.virtio_console or "") if _is_stdio(text)]
    if places and wants:
        raise UsageError(
            "--hmp stdio and a guest's console on stdio cannot share standard input; "
            "give the guest --serial file:PATH, pty or none"
        )


def _is_stdio(text: str) -> bool:
    return text.partition(",")[0] == "stdio"
