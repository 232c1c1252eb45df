"""Where a guest comes from and goes to other than by booting and ending: files, other processes."""

from __future__ import annotations

import os
import signal
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

from cpufw.cli.completion import completes_files
from cpufw.cli.output import say, warn
from cpufw.errors import CpufwError, MigrationInDoubtError, UsageError

if TYPE_CHECKING:
    from cpufw.core.board import Outcome
    from cpufw.core.machine import Machine
    from cpufw.framework import Framework

_MEGABYTE = 1_000_000

# What a saved machine brings with it, with the option's default; files only where --load says so.
_FILES: Mapping[str, Any] = {
    "image": None,
    "kernel": None,
    "initrd": None,
    "firmware": None,
    "drive": [],
}
_BROUGHT: Mapping[str, Any] = {
    "append": "",
    "protocol": None,
    "entry_mode": None,
    "load_address": None,
    "machine": "pc",
    "cpu": None,
    "smp": "1",
    "memory": "128M",
    "device": [],
    "numa": [],
    "drive": [],
    "rng": False,
    "fw_cfg": [],
    "no_reboot": False,
    "on_crash": None,
    "enforce": False,
}


def add_arrival_options(parser: ArgumentParser) -> None:
    """Add where a guest may come from."""
    group = parser.add_argument_group("saved and moved guests (docs/snapshots.md)")
    source = group.add_mutually_exclusive_group()
    completes_files(
        source.add_argument(
            "--load", metavar="FILE", help="go on with the guest that --save wrote there"
        )
    )
    source.add_argument(
        "--incoming",
        metavar="ADDRESS",
        help="wait for a guest that --migrate sends to unix:PATH or tcp:HOST:PORT",
    )
    departure = group.add_mutually_exclusive_group()
    completes_files(
        departure.add_argument(
            "--save",
            metavar="FILE",
            help="save the guest there when --timeout, Ctrl-C or SIGTERM ends the run",
        )
    )
    departure.add_argument(
        "--migrate",
        metavar="ADDRESS",
        help="when --timeout is over move the running guest to who has --incoming ADDRESS",
    )
    group.add_argument("--compress", action="store_true", help="save with zstd")
    group.add_argument(
        "--downtime",
        type=_milliseconds,
        default=0.3,
        metavar="MS",
        help="the longest that a moved guest may stand still (default: 300)",
    )
    group.add_argument(
        "--bandwidth",
        type=_megabytes,
        default=0,
        metavar="MB/S",
        help="the most to send in a second while the guest runs (default: no limit)",
    )


def check_arrival(options: Namespace) -> None:
    """Raise `UsageError` for options that a saved machine decides itself."""
    if options.migrate is not None and options.timeout is None:
        raise UsageError("--migrate needs --timeout: how many seconds to run before")
    if options.load is None and options.incoming is None:
        return
    is_file = options.load is not None
    source, brought = ("--load", {**_FILES, **_BROUGHT}) if is_file else ("--incoming", _BROUGHT)
    for name, default in brought.items():
        if getattr(options, name, default) != default:
            shown = "IMAGE" if name == "image" else "--" + name.replace("_", "-")
            raise UsageError(f"{shown} cannot be given with {source}: the guest brings its own")


@contextmanager
def arrived(framework: Framework, options: Namespace, host: Mapping[str, Any]) -> Iterator[Machine]:
    """The machine that `--load` or `--incoming` names; `host` are options of the board."""
    if options.load is not None:
        with framework.load_machine(options.load, options.accel, **host) as machine:
            yield machine
        return
    from cpufw.snapshot.channel import Address, Listener

    with Listener(Address.parse(options.incoming)) as listener:
        say(f"waiting for a guest at {listener.address}")
        with listener.accept() as channel:
            machine = framework.receive_machine(channel, options.accel, **host, **_files(options))
    with machine:
        yield machine


def _files(options: Namespace) -> dict[str, Any]:
    """The files of this host that a guest which comes from another may use."""
    given = {
        "kernel": options.kernel or options.image,
        "initrd": options.initrd,
        "firmware": options.firmware,
        "drives": options.drive,
    }
    return {name: value for name, value in given.items() if value}


def wait_for_end(machine: Machine, options: Namespace) -> Outcome:
    """Wait for the run's end, and save or move the guest where that is asked for."""
    from cpufw.cli import Terminated

    try:
        outcome = machine.wait(options.timeout)
    except (KeyboardInterrupt, Terminated):
        if options.save is not None:
            _save(machine, options)
        raise
    if outcome.reason != "timeout":
        return outcome
    if options.save is not None:
        return _save(machine, options)
    if options.migrate is not None:
        return _migrate(machine, options)
    return outcome


def _save(machine: Machine, options: Namespace) -> Outcome:
    from cpufw.core.board import Outcome

    machine.pause()  # what it would do after being saved it would do twice
    machine.save(options.save, compress=options.compress)
    say(f"saved to {options.save}")
    return Outcome("stopped")


def _migrate(machine: Machine, options: Namespace) -> Outcome:
    from cpufw.core.board import Outcome
    from cpufw.snapshot.channel import Address
    from cpufw.snapshot.migration import Limits, Migration

    address = Address.parse(options.migrate)
    limits = Limits(bandwidth=options.bandwidth, downtime=options.downtime)
    try:
        report = Migration(machine, address, limits).run()
    except MigrationInDoubtError as error:
        warn(f"{error} (kill -USR1 {os.getpid()} resumes it, Ctrl-C gives it up)")
        before = signal.signal(signal.SIGUSR1, lambda *_: machine.resume())
        try:
            return machine.wait(None)
        finally:
            signal.signal(signal.SIGUSR1, before)
    except CpufwError as error:
        warn(f"{error}; the guest goes on here")
        return machine.wait(None)
    say(
        f"moved to {address} in {report.seconds:.2f} s, {report.bytes / _MEGABYTE:.1f} MB in "
        f"{report.rounds} rounds; it stood still for {report.downtime * 1000:.0f} ms"
    )
    return Outcome("stopped")


def _positive(text: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < inf:
        raise ArgumentTypeError(f"'{text}' is not a number of {unit} above 0")
    return value


def _milliseconds(text: str) -> float:
    return _positive(text, "milliseconds") / 1000


def _megabytes(text: str) -> int:
    return int(_positive(text, "megabytes") * _MEGABYTE)
