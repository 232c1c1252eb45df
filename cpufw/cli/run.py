"""`cpufw run`: a guest under the CPU model you name."""

from __future__ import annotations

import signal
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from cpufw.cli.departure import add_arrival_options, arrived, check_arrival, wait_for_end
from cpufw.cli.guest_options import (
    add_guest_options,
    add_machine_options,
    board_options,
    host_options,
)
from cpufw.cli.monitor import add_monitor_options, check_monitor, greeted, monitored
from cpufw.cli.output import say, warn
from cpufw.cli.serial import (
    add_serial_option,
    console_chardev,
    say_places,
    serial_chardevs,
)
from cpufw.cli.session import open_framework
from cpufw.command import Command
from cpufw.errors import UsageError

if TYPE_CHECKING:
    from cpufw.core.machine import Machine
    from cpufw.framework import Framework
    from cpufw.monitor.greeter import Greeter

_EPILOG = """\
exit status:
  (v << 1) | 1  the guest wrote the byte v to port 0xf4
  0             the guest powered off, or reset the machine and --no-reboot is given, or was
                saved or moved
  1             cpufw could not do it
  2             the request was malformed
  3             the guest died: its registers and code are on standard error
  124           the guest did not end within --timeout
  130, 143      interrupted by Ctrl-C, terminated by SIGTERM

examples:
  cpufw run --cpu Haswell,+pcid,-avx2 --timeout 10 guest.elf
  cpufw run --cpu Haswell --smp 1,maxcpus=2 --entry-mode long guest.bin \\
      --device Haswell-x86_64-cpu,id=cpu1,socket-id=0,core-id=1,thread-id=0
"""


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.epilog = _EPILOG
    add_guest_options(parser)
    add_machine_options(parser)
    add_serial_option(parser)
    add_monitor_options(parser)
    add_arrival_options(parser)


def run(options: Namespace) -> int:
    """Run the guest to its end; returns the exit status it means."""
    check_arrival(options)
    check_monitor(options)
    with greeted(options) as greeter:
        return _run(options, greeter)


def _run(options: Namespace, greeter: Greeter | None) -> int:
    is_saved = options.load is not None or options.incoming is not None
    begin = arrived if is_saved else _booted
    given = host_options(options) if is_saved else board_options(options)
    framework = open_framework(options)
    with (
        stop_signals(),
        console_chardev(options.virtio_console, options.serial) as console,
        serial_chardevs(options.serial) as chardevs,
    ):
        given |= {"serial": chardevs}
        if console is not None:  # else a saved machine's leads nowhere
            given["virtio_console"] = console
        with begin(framework, options, given) as machine:
            say(f"accelerator {machine.accelerator_name}")
            for sentence in dict.fromkeys(s for cpu in machine.cpus() for s in cpu.warnings):
                warn(sentence)
            say_places(chardevs, console)
            with monitored(framework, machine, options, greeter) as monitor:
                if machine.status == "prelaunch" and not options.paused:
                    machine.start()
                outcome = wait_for_end(machine, options)
                if outcome.reason == "migrated" and monitor is not None:
                    monitor.ended.wait()  # clients ask what came of it, and say quit
            machine.stop()
            for sentence in machine.report():
                say(sentence)
            message = outcome.message
            if outcome.reason == "timeout":
                message += "\n" + machine.describe()
        if outcome.reason in ("died", "panicked", "timeout"):
            say(message)
    return outcome.status


@contextmanager
def _booted(
    framework: Framework, options: Namespace, board: Mapping[str, Any]
) -> Iterator[Machine]:
    """A machine as the options describe it."""
    cpu, devices = _cpu(options), [parse_device(text) for text in options.device]
    with framework.machine(
        options.machine, cpu=cpu, smp=options.smp, accel=options.accel, **board
    ) as machine:
        for driver, properties in devices:
            machine.device_add(driver, **properties)
        yield machine


def _cpu(options: Namespace) -> str | None:
    if not options.enforce:
        cpu: str | None = options.cpu
        return cpu
    if options.cpu is None:
        raise UsageError("--enforce needs --cpu")
    return f"{options.cpu},enforce=on"


def parse_device(text: str) -> tuple[str, dict[str, Any]]:
    """Type name and properties of `Haswell-x86_64-cpu,id=cpu1,socket-id=1`."""
    driver, *parts = text.split(",")
    if not driver or "=" in driver:
        raise UsageError(f"--device: '{text}' does not begin with a CPU type")
    properties: dict[str, Any] = {}
    for part in parts:
        given, equals, value = part.partition("=")
        name = given.replace("-", "_")
        if not equals or not name:
            raise UsageError(f"--device: '{part}' is not NAME=VALUE")
        if name in properties:
            raise UsageError(f"--device: '{given}' is given twice")
        properties[name] = value
    return driver, properties


@contextmanager
def stop_signals() -> Iterator[None]:
    """Make SIGTERM end the block as Ctrl-C does."""
    from cpufw.cli import Terminated

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


COMMAND = Command("run", "run a guest under the CPU model you name", configure, run)
