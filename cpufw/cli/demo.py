"""`cpufw demo`: the guest that comes with cpufw, and a CPU plugged into it while it runs."""

from __future__ import annotations

import sys
import threading
from argparse import ArgumentParser, Namespace
from time import monotonic

from cpufw.cli.completion import completes_models
from cpufw.cli.output import print_json, warn
from cpufw.cli.run import stop_signals
from cpufw.cli.session import open_framework
from cpufw.command import Command
from cpufw.core.hotplug import HotplugEvent, HotplugEventKind, Slot
from cpufw.core.machine import Machine
from cpufw.errors import GuestError, UsageError

_PATIENCE = 60.0  # seconds for one step; a loaded software KVM needs a tenth of one


def configure(parser: ArgumentParser) -> None:
    """Add the command's options."""
    completes_models(
        parser.add_argument(
            "--cpu",
            default="Haswell",
            metavar="MODEL",
            help="a model, also with properties: Haswell,+pcid,-avx (default: Haswell)",
        )
    )
    parser.add_argument(
        "--smp",
        default="1,maxcpus=2",
        metavar="SMP",
        help="the topology, as in cpufw run; the first free slot is plugged (default: 1,maxcpus=2)",
    )
    parser.add_argument(
        "--machine", "-M", default="pc", metavar="TYPE", help="the machine type (default: pc)"
    )
    parser.add_argument(
        "--accel",
        default="kvm",
        metavar="NAME[:NAME]",
        help="what runs the guest, the first of these that opens (default: kvm)",
    )
    parser.add_argument(
        "--cycles",
        type=int,
        default=1,
        metavar="N",
        help="plug and unplug that often (default: 1)",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")


def run(options: Namespace) -> int:
    """Boot, plug, unplug, power off; prints what the guest and the machine say."""
    if options.cycles < 0:
        raise UsageError(f"--cycles {options.cycles} is negative")
    framework = open_framework(options)
    kind = framework.machine_type(options.machine) if options.machine != "none" else None
    if kind is None or kind.demo is None:
        raise UsageError(f"machine type {options.machine} has no demonstration guest")
    show = _Transcript(quiet=options.format == "json")
    with (
        stop_signals(),
        framework.machine(
            options.machine,
            cpu=options.cpu,
            smp=options.smp,
            accel=options.accel,
            **kind.demo,
            serial=show.guest,
        ) as machine,
    ):
        machine.subscribe(show.event)
        boot = machine.slots[0].cpu
        assert boot is not None
        requested, granted, unavailable = map(
            list, (boot.requested, boot.granted, boot.unavailable)
        )
        show.note(f"{machine.cpu_class.type_name} on {machine.accelerator_name}")
        if not show.quiet:
            for sentence in boot.warnings:
                warn(sentence)
        machine.start()
        for slot in machine.slots[: machine.topology.cpus]:
            show.await_line(machine, f"cpu {slot.arch_id}: online")
        free = [slot for slot in machine.slots if slot.cpu is None]
        if options.cycles and not free:
            show.note("no free slot: nothing can be plugged; give --smp a larger maxcpus")
        for cycle in range(options.cycles if free else 0):
            _cycle(machine, free[0], show, cycle == 0)
        machine.powerdown()
        outcome = machine.wait(_PATIENCE)
        show.note(outcome.message)
    if options.format == "json":
        print_json(
            {
                "cpu": machine.cpu_class.type_name,
                "requested": requested,
                "granted": granted,
                "unavailable": unavailable,
                "outcome": outcome.reason,
                "console": show.text.splitlines(),
                "events": show.events,
            }
        )
    return outcome.status


def _cycle(machine: Machine, slot: Slot, show: _Transcript, first: bool) -> None:
    ids = {name.replace("-", "_"): value for name, value in slot.id.props().items()}
    given = ",".join(f"{name}={value}" for name, value in slot.id.props().items())
    if first:
        show.note(f"device_add {machine.cpu_class.type_name},id=cpu{slot.index},{given}")
    mark = len(show.text)
    machine.device_add(machine.cpu_class.type_name, id=f"cpu{slot.index}", **ids)
    show.await_line(machine, f"cpu {slot.arch_id}: online", mark)
    if first:
        show.note(f"device_del cpu{slot.index}")
    seen = machine.log.seq
    machine.device_del(f"cpu{slot.index}")
    for event in machine.events(seen, timeout=_PATIENCE):
        if event.kind is HotplugEventKind.UNPLUGGED:
            return
        if event.kind is HotplugEventKind.UNPLUG_REFUSED:
            break
    raise GuestError(f"the guest did not give up cpu{slot.index}")


class _Transcript:
    """The guest's lines and the machine's events, in order, as they come."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.text = ""
        self.events: list[str] = []
        self._start = monotonic()
        self._lock = threading.Lock()
        self._shown = 0

    def guest(self, data: bytes) -> None:
        """Take what the guest printed; whole lines are shown."""
        with self._lock:
            self.text += data.decode("ascii", "replace")
            end = self.text.rfind("\n") + 1
            self._print(self.text[self._shown : end].rstrip("\n"))
            self._shown = end

    def event(self, event: HotplugEvent) -> None:
        """Take one hot-plug event."""
        where = f"slot {event.slot} {event.kind.value}"
        detail = f" ({event.detail})" if event.detail else ""
        self.note(f"{where}{detail}")
        self.events.append(where)

    def note(self, text: str) -> None:
        """Show a line of the machine's own, with the seconds since the start."""
        with self._lock:
            self._print(f"[{monotonic() - self._start:8.3f}] {text}")

    def await_line(self, machine: Machine, line: str, start: int = 0) -> None:
        """Wait for the guest to print `line`. Raises `GuestError` if it ends or never does."""
        deadline = monotonic() + _PATIENCE
        while line + "\n" not in self.text[start:]:
            outcome = machine.wait(0.02)
            if outcome.reason != "timeout":
                raise GuestError(f"the guest ended ({outcome.reason}): {outcome.message}")
            if monotonic() > deadline:
                raise GuestError(f"the guest did not print '{line}'")

    def _print(self, text: str) -> None:
        if text and not self.quiet:
            print(text)
            sys.stdout.flush()


COMMAND = Command("demo", "run the demonstration guest and hot-plug a CPU", configure, run)
