"""The process: from its arguments to its exit status."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any

from cpufw.errors import CpufwError
from cpufw.system.command_line import CommandLine, parse_command_line
from cpufw.system.daemon import Daemon, PidFile, daemonize

if TYPE_CHECKING:
    from cpufw.core.hotplug import HotplugEvent
    from cpufw.core.machine import Machine

FAILED = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_HOST_SIGNAL = {"guest": False, "reason": "host-signal"}
_QUIT = "host-qmp-quit"
# A signal that comes when a wait is about to begin is served when that ends: none may be long.
_GLANCE = 1.0


def run(arguments: Sequence[str] | None = None) -> int:
    """Serve the command line; see `cpufw.system.main`."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    program = Path(sys.argv[0]).name
    try:
        line = parse_command_line(given)
        if line.wanted_text:
            from cpufw.system.texts import text

            sys.stdout.write(text(line.wanted_text, program))
            sys.stdout.flush()
            return 0
        daemon = daemonize() if line.daemonize else None
        if isinstance(daemon, int):
            return daemon
        return _serve(line, program, daemon)
    except CpufwError as error:
        _say(program, str(error))
        return FAILED


def _say(program: str, sentence: str) -> None:
    sys.stderr.write(f"{program}: {sentence}\n")
    sys.stderr.flush()


def _serve(line: CommandLine, program: str, daemon: Daemon | None) -> int:
    """Run the guest until it, a client or a signal ends it; returns the exit status."""
    with ExitStack() as stack:
        try:
            return _serve_guest(line, program, daemon, stack)
        except CpufwError as error:
            # Said before clients are let go: libvirt shows what it finds when the monitor closes.
            _say(program, str(error))
            return FAILED


def _serve_guest(line: CommandLine, program: str, daemon: Daemon | None, stack: ExitStack) -> int:
    from cpufw.monitor.greeter import Greeter
    from cpufw.system.chardevs import Chardevs

    happened: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
    chardevs = Chardevs(line)
    stack.callback(chardevs.close)
    places = chardevs.monitors()
    greeter = Greeter([place for mode, place in places if mode == "control" and place])
    stack.callback(greeter.close)
    # Clients are greeted while all of this is still being read.
    from cpufw.framework import Framework
    from cpufw.monitor.monitor import Monitor
    from cpufw.monitor.server import QmpServer
    from cpufw.system.guest import build_machine

    framework = Framework()
    machine = stack.enter_context(build_machine(framework, line, chardevs))
    for sentence in dict.fromkeys(s for cpu in machine.cpus() for s in cpu.warnings):
        _say(program, f"warning: {sentence}")
    if line.debug_threads:
        _name_threads(machine)
    monitor = Monitor(framework, machine, line.name, line.uuid)
    monitor.chardevs = chardevs.labels
    stack.callback(monitor.close)
    monitor.subscribe(happened.put)
    server = QmpServer(monitor, greeter)
    if line.pidfile is not None:
        stack.callback(PidFile(line.pidfile).remove)
    _catch_signals(happened)
    for mode, place in places:
        if mode == "readline":
            from cpufw.monitor.hmp.console import HmpConsole

            console = HmpConsole(monitor, place)
            stack.callback(console.close)
            console.start()
    server.start()
    stack.callback(server.close)
    if not line.paused and machine.slots:
        machine.start()
    if daemon is not None:
        daemon.ready()
    status = _wait(machine, line, happened)
    if status is None:
        monitor.emit("SHUTDOWN", _HOST_SIGNAL)
        status = 0
    return status


def _catch_signals(happened: SimpleQueue[Mapping[str, Any]]) -> None:
    def caught(number: int, _frame: FrameType | None) -> None:
        happened.put({"signal": number})

    for number in _SIGNALS:
        signal.signal(number, caught)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _wait(
    machine: Machine, line: CommandLine, happened: SimpleQueue[Mapping[str, Any]]
) -> int | None:
    """Wait for the end; the exit status, None if a signal is the reason."""
    while True:
        try:
            event = happened.get(timeout=_GLANCE)
        except Empty:
            continue
        if "signal" in event:
            return None
        if event.get("event") != "SHUTDOWN":
            continue
        if event["data"]["reason"] == _QUIT:
            return 0
        outcome = machine.wait(0)
        if outcome.reason == "exit":  # the debug exit port ends QEMU in any case
            return outcome.status
        if line.quits:
            return 0
        machine.notify("STOP")  # as QEMU: the machine stays, and its CPUs do not run


def _name_threads(machine: Machine) -> None:
    """Call each vCPU's thread `CPU 0/KVM`, as QEMU does and people expect in top."""
    from cpufw.core.hotplug import HotplugEventKind

    def name(index: int) -> None:
        thread = machine.board.thread_id(machine.slots[index])
        if thread:
            comm = Path(f"/proc/self/task/{thread}/comm")
            comm.write_text(f"CPU {index}/KVM", encoding="ascii")

    def on_event(event: HotplugEvent) -> None:
        if event.kind is HotplugEventKind.PRESENT:
            name(event.slot)

    for slot in machine.slots:
        if slot.cpu is not None:
            name(slot.index)
    machine.subscribe(on_event)
