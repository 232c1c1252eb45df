"""`cpufw run`: a guest under the CPU model you name."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from types import FrameType
from typing import Any

from cpufw.cli.completion import completes_files, completes_models
from cpufw.cli.output import say, warn
from cpufw.cli.session import open_framework
from cpufw.command import Command
from cpufw.errors import CpufwError, UsageError

_EPILOG = """\
exit status:
  (v << 1) | 1  the guest wrote the byte v to port 0xf4
  0             the guest powered off (port 0x604) or reset the machine (port 0xcf9)
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
    guest = parser.add_argument_group("guest")
    completes_files(
        guest.add_argument("image", nargs="?", metavar="IMAGE", help="a flat binary or an ELF file")
    )
    completes_files(guest.add_argument("--kernel", metavar="IMAGE", help="the same as IMAGE"))
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
    guest.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="stop it after that long and show where each CPU was (default: never)",
    )
    guest.add_argument(
        "--serial",
        default="stdio",
        metavar="WHERE",
        help="where what it prints at port 0x3f8 goes: stdio, file:PATH or none (default: stdio)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--machine", "-M", default="pc", metavar="TYPE", help="the machine type (default: pc)"
    )
    completes_models(
        machine.add_argument(
            "--cpu",
            metavar="MODEL[,+FEATURE][,-FEATURE][,PROPERTY=VALUE]",
            help="the CPU model, see cpufw list-models (default: the machine type's, qemu64 on pc)",
        )
    )
    machine.add_argument(
        "--smp",
        default="1",
        metavar="N[,maxcpus=M][,sockets=…][,dies=…][,modules=…][,cores=…][,threads=…]",
        help="CPUs at boot, and the slots there are (default: 1)",
    )
    machine.add_argument(
        "--memory",
        "-m",
        default="128M",
        metavar="SIZE",
        help="RAM: 64M, 2G; a number alone counts MiB (default: 128M)",
    )
    machine.add_argument(
        "--accel",
        default="kvm",
        metavar="NAME[:NAME]",
        help="what runs the guest, the first of these that opens (default: kvm)",
    )
    machine.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="TYPE,id=ID,socket-id=N,…",
        help="plug a CPU of the machine's type before the guest starts; may be repeated",
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
    if options.machine == "none":
        raise UsageError("--machine none has nothing to run a guest on, expected for example pc")
    cpu, devices = _cpu(options), [parse_device(text) for text in options.device]
    framework = open_framework(options)
    with serial_sink(options.serial) as sink, stop_signals():
        with framework.machine(
            options.machine,
            cpu=cpu,
            smp=options.smp,
            accel=options.accel,
            memory=options.memory,
            kernel=image,
            entry_mode=options.entry_mode,
            load_address=options.load_address,
            serial=sink,
        ) as machine:
            for driver, properties in devices:
                machine.device_add(driver, **properties)
            say(f"accelerator {machine.accelerator_name}")
            for sentence in dict.fromkeys(s for cpu in machine.cpus() for s in cpu.warnings):
                warn(sentence)
            machine.start()
            outcome = machine.wait(options.timeout)
            machine.stop()
            message = outcome.message
            if outcome.reason == "timeout":
                message += "\n" + machine.describe()
        if outcome.reason in ("died", "timeout"):
            say(message)
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
        try:
            file = Path(path).open("wb", buffering=0)  # noqa: SIM115 - closed below
        except OSError as error:
            raise CpufwError(f"--serial: {path} cannot be opened: {error.strerror}") from None
        with file:
            yield lambda data: _write_all(file, path, data)
    else:
        raise UsageError(f"--serial: '{where}' is not stdio, file:PATH or none")


def _write_all(file: Any, path: str, data: bytes) -> None:
    try:
        while data:
            data = data[file.write(data) :]
    except OSError as error:
        raise CpufwError(f"--serial: {path} cannot be written: {error.strerror}") from None


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


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < inf:
        raise ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return value


COMMAND = Command("run", "run a guest under the CPU model you name", configure, run)
