"""`cpufw run`: a guest under the CPU model you name."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from cpufw.cli.output import warn
from cpufw.cli.session import open_framework
from cpufw.command import Command
from cpufw.errors import UsageError


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    guest = parser.add_argument_group("guest")
    guest.add_argument("image", nargs="?", metavar="IMAGE", help="a flat binary or an ELF file")
    guest.add_argument("--kernel", metavar="IMAGE", help="the same as IMAGE")
    guest.add_argument(
        "--entry-mode",
        choices=("real", "protected", "long"),
        help="the mode to enter it in (default: real for flat, by its class for ELF)",
    )
    guest.add_argument(
        "--load-address",
        type=_number,
        metavar="ADDR",
        help="where a flat image goes (default: 0x7c00 in real mode, else 0x100000)",
    )
    guest.add_argument("--timeout", type=float, metavar="SECONDS", help="stop it after that long")
    guest.add_argument(
        "--serial",
        default="stdio",
        metavar="WHERE",
        help="where its output at 0x3f8 goes: stdio, file:PATH or none (default: stdio)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--machine", "-M", default="pc", metavar="TYPE", help="default: pc")
    machine.add_argument(
        "--cpu", metavar="MODEL[,+FEATURE][,-FEATURE][,PROPERTY=VALUE]", help="the CPU model"
    )
    machine.add_argument(
        "--smp",
        default="1",
        metavar="N[,maxcpus=M][,sockets=…][,dies=…][,modules=…][,cores=…][,threads=…]",
        help="CPUs at boot, and the slots there are (default: 1)",
    )
    machine.add_argument("--memory", "-m", default="128M", metavar="SIZE", help="default: 128M")
    machine.add_argument("--accel", default="kvm", metavar="NAME[:NAME]", help="default: kvm")
    machine.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="TYPE,id=ID,socket-id=N,…",
        help="plug a CPU of this type before the guest starts; may be repeated",
    )
    machine.add_argument(
        "--enforce", action="store_true", help="refuse to run if a feature is not granted"
    )


def run(options: Namespace) -> int:
    """Run the guest to its end; returns the exit status it means."""
    image = options.kernel or options.image
    if image is None:
        raise UsageError("a guest image is missing: cpufw run IMAGE")
    if options.kernel and options.image:
        raise UsageError(f"two guest images are given, {options.image} and {options.kernel}")
    framework = open_framework(options)
    with serial_sink(options.serial) as sink, stop_signals():
        with framework.machine(
            options.machine,
            cpu=_cpu(options),
            smp=options.smp,
            accel=options.accel,
            memory=options.memory,
            kernel=image,
            entry_mode=options.entry_mode,
            load_address=options.load_address,
            serial=sink,
        ) as machine:
            for device in options.device:
                driver, properties = parse_device(device)
                machine.device_add(driver, **properties)
            print(f"cpufw: accelerator {machine.accelerator_name}", file=sys.stderr)
            for sentence in dict.fromkeys(s for cpu in machine.cpus() for s in cpu.warnings):
                warn(sentence)
            machine.start()
            outcome = machine.wait(options.timeout)
            machine.stop()
            message = outcome.message
            if outcome.reason == "timeout":
                message += "\n" + machine.describe()
        if outcome.reason in ("died", "timeout"):
            print(f"cpufw: {message}", file=sys.stderr)
    return outcome.status


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
    properties: dict[str, Any] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise UsageError(f"--device: '{part}' is not NAME=VALUE")
        if name in properties:
            raise UsageError(f"--device: '{name}' is given twice")
        properties[name.replace("-", "_")] = value
    return driver, properties


@contextmanager
def serial_sink(where: str) -> Iterator[Callable[[bytes], None] | None]:
    """What takes the guest's output: `stdio`, `file:PATH`, `none`."""
    kind, colon, path = where.partition(":")
    if where == "none":
        yield None
    elif where == "stdio":
        stdout = sys.stdout.buffer

        def write(data: bytes) -> None:
            stdout.write(data)
            stdout.flush()

        yield write
    elif kind == "file" and colon and path:
        with Path(path).open("wb", buffering=0) as file:
            yield lambda data: _write_all(file, data)
    else:
        raise UsageError(f"--serial: '{where}' is not stdio, file:PATH or none")


def _write_all(file: Any, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


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


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0:
        raise ArgumentTypeError(f"'{text}' is not an address like 0x7c00")
    return value


COMMAND = Command("run", "run a guest under the CPU model you name", configure, run)
