"""The PC's serial ports: UARTs joined to what they lead to on the host, and to their interrupts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from cpufw.chardev import Chardev, EventLoop, NullChardev
from cpufw.chardev.loop import POLLIN
from cpufw.core.vmstate import VMState, array, boolean, u8, u16
from cpufw.errors import UsageError

if TYPE_CHECKING:
    from cpufw.kvm import VM


class ComPort(NamedTuple):
    """Where a PC has a serial port."""

    port: int
    irq: int


COM_PORTS = (ComPort(0x3F8, 4), ComPort(0x2F8, 3), ComPort(0x3E8, 4), ComPort(0x2E8, 3))
"""COM1 to COM4."""

_LINE_RATE = 11_520
"""Bytes a second that a guest gets which takes interrupts: 115,200 baud, ten bits a byte.

Faster than a wire ever was, the interrupt handler would fill the guest's buffers before anything
in the guest could empty them.
"""
_BURST = 64  # bytes that may come at once after a pause
_PAUSE = 0.01  # seconds in which output, or input, is collected
_MUCH = 65_536  # bytes
_STUCK = 0.1  # seconds after which a vCPU that waits for room looks round


class SerialPort:
    """A 16550A at `place`, its line led to `chardev`.

    Output goes on as it comes, at most every 10 ms. Where the chardev takes no more, the guest
    waits once 64 KiB are full. Input is read no faster than the guest takes it.
    """

    vmstate: ClassVar[VMState] = VMState(
        "uart-16550a",
        1,
        u8("ier", attr="saved.ier"),
        u8("fcr", attr="saved.fcr"),
        u8("lcr", attr="saved.lcr"),
        u8("mcr", attr="saved.mcr"),
        u8("scr", attr="saved.scr"),
        u16("divisor", attr="saved.divisor"),
        u8("line-errors", attr="saved.line_errors"),
        u8("modem-deltas", attr="saved.modem_deltas"),
        u8("modem-lines", attr="saved.modem_lines"),
        boolean("thr-empty", attr="saved.thr_empty"),
        boolean("rts-used", attr="saved.rts_used"),
        boolean("line", attr="saved.line"),
        array(u16, "fifo", most=16, attr="saved.fifo"),
        array(u16, "input", most=4096, attr="saved.input"),
        pre_save="collect_state",
        post_load="apply_state",
    )

    def __init__(
        self,
        vm: VM,
        place: ComPort,
        chardev: Chardev,
        loop: EventLoop,
        on_error: Callable[[Exception], None],
    ) -> None:
        self.place, self.chardev = place, chardev
        self.ports = range(place.port, place.port + 8)
        self._loop, self._on_error = loop, on_error
        self.uart = vm.add_uart(place.port)
        self.saved = SimpleNamespace(**self.uart.get_state())
        self._pending = b""  # taken from the UART, and not yet by the chardev
        self._failed = self._hurried = False
        self._room = threading.Condition()
        self._tokens, self._tokens_at = float(_BURST), monotonic()
        self._resting = False
        self._descriptors = ExitStack()
        irq_fd = self._eventfd()
        vm.irqfd(irq_fd, place.irq)
        self.uart.set_irq_fd(irq_fd)
        self._output_fd, self._room_fd = self._eventfd(), self._eventfd()
        self.uart.set_output_fd(self._output_fd)
        self.uart.set_room_fd(self._room_fd)
        if isinstance(chardev, NullChardev):
            self.uart.discard_output()
        loop.watch(self._output_fd, POLLIN, self._on_output)
        loop.watch(self._room_fd, POLLIN, self._on_room)
        chardev.on_input, chardev.on_break = self._take_input, self.uart.push_break
        chardev.on_writable = self.pass_on

    def start(self) -> None:
        """Begin to pass on input; a terminal becomes raw now."""
        self.chardev.start(self._loop)

    def type_text(self, data: bytes) -> None:
        """Input as if it had come from the chardev; all of it arrives, as the guest takes it."""
        self._loop.start()
        self.chardev.inject(data)

    def _eventfd(self) -> int:
        fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._descriptors.callback(os.close, fd)
        return fd

    def close(self) -> None:
        """Give back what was opened here; the VM and the loop must be closed before."""
        self.uart.set_irq_fd(-1)
        self.uart.set_output_fd(-1)
        self.uart.set_room_fd(-1)
        self._descriptors.close()

    def reset(self) -> None:
        """As at power-on; what is on its way either way arrives."""
        self.uart.reset()

    def collect_state(self) -> None:
        """Bring `saved` up to date. Output goes to the chardev, not into the state."""
        state = self.uart.get_state()
        for flag in ("thr_empty", "rts_used", "line"):
            state[flag] = bool(state[flag])
        self.saved = SimpleNamespace(**state)

    def apply_state(self) -> None:
        """Make the UART what `saved` says."""
        self.uart.set_state(vars(self.saved))

    # --- output, on the loop's thread or a vCPU's -----------------------------------------

    def pass_on(self) -> None:
        """Hand the chardev what it takes now."""
        with self._room:
            try:
                while not self._failed:
                    self._pending = self._pending or self.uart.drain()
                    if not self._pending:
                        break
                    taken = self.chardev.write(self._pending)
                    self._pending = self._pending[taken:]
                    if self._pending:
                        break
            except Exception as error:
                self._failed = True
                self._pending = b""
                self.uart.discard_output()
                self.uart.drain()
                self._on_error(error)
            self._room.notify_all()

    def send(self, data: bytes) -> None:
        """Output of another device, behind the UART's; a vCPU's thread waits a moment for room."""
        self.pass_on()
        with self._room:
            self._room.wait_for(lambda: len(self._pending) < _MUCH or self._failed, _STUCK)
            if not self._failed:
                self._pending += data
        self.pass_on()

    def _on_output(self, _revents: int) -> None:
        os.eventfd_read(self._output_fd)
        self.pass_on()
        # Collect for a while: otherwise a guest that prints would wake this thread at each byte.
        self._loop.unwatch(self._output_fd)
        self._loop.call_later(_PAUSE, self._after_pause)

    def _after_pause(self) -> None:
        self._loop.watch(self._output_fd, POLLIN, self._on_output)

    def wait_for_room(self) -> None:
        """If the guest cannot write for lack of room, wait until it can, for a moment at most."""
        if not self.uart.is_full:
            return
        self.pass_on()
        with self._room:
            self._room.wait_for(lambda: not self.uart.is_full, _STUCK)

    @property
    def has_output(self) -> bool:
        """Whether there is output that the chardev has not taken."""
        return bool(self._pending) or self.uart.has_output

    def flush(self, timeout: float | None) -> None:
        """Wait until the chardev has taken all output, or `timeout` seconds; None: without end."""
        deadline = None if timeout is None else monotonic() + timeout
        self.pass_on()
        with self._room:
            while self.has_output and not self._hurried:
                left = _STUCK if deadline is None else deadline - monotonic()
                if left <= 0:
                    break
                self._room.wait(min(left, _STUCK))

    def hurry(self) -> None:
        """Let `flush` wait no more, now and from now on."""
        with self._room:
            self._hurried = True
            self._room.notify_all()

    # --- input, on the loop's thread ------------------------------------------------------

    def _take_input(self, data: bytes) -> int:
        if not self.uart.receives_by_interrupt:
            return self.uart.push(data)  # whoever polls sets the pace
        now = monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._tokens_at) * _LINE_RATE)
        self._tokens_at = now
        taken = self.uart.push(data[: int(self._tokens)])
        self._tokens -= taken
        if taken < len(data) and self._tokens < 1 and not self._resting:
            self._resting = True
            self._loop.call_later(_PAUSE, self._rested)
        return taken

    def _rested(self) -> None:
        self._resting = False
        self.chardev.resume_input()

    def _on_room(self, _revents: int) -> None:
        os.eventfd_read(self._room_fd)
        self.chardev.resume_input()


class SerialPorts:
    """COM1 to COM4, as many as `chardevs` are given; they stay the caller's.

    `loop` waits for all of them, and for what others let it wait for; `close` ends it.
    `on_error` is told once a port when its chardev fails; that port's output is then dropped.
    `on_command(key)` as `Chardev` says; after `x` no output is waited for. Raises `UsageError` for
    more than four.
    """

    def __init__(
        self,
        vm: VM,
        chardevs: Sequence[Chardev],
        on_error: Callable[[Exception], None],
        on_command: Callable[[str], None],
    ) -> None:
        if len(chardevs) > len(COM_PORTS):
            raise UsageError(
                f"{len(chardevs)} serial ports are asked for, a PC has {len(COM_PORTS)}"
            )
        self.loop = EventLoop(on_error)
        self._on_command = on_command
        self.ports: list[SerialPort] = []
        for place, chardev in zip(COM_PORTS, chardevs, strict=False):
            chardev.on_command = self._command
            self.ports.append(SerialPort(vm, place, chardev, self.loop, on_error))

    def start(self) -> None:
        """Begin to pass on input and output."""
        for port in self.ports:
            port.start()
        if not all(isinstance(port.chardev, NullChardev) for port in self.ports):
            self.loop.start()  # a port that leads nowhere needs no thread

    def _command(self, key: str) -> None:
        if key == "x":
            for port in self.ports:
                port.hurry()
        self._on_command(key)

    def wait_for_room(self) -> None:
        """What a vCPU does whose guest may have found a UART full; 0.1 s at most."""
        for port in self.ports:
            port.wait_for_room()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all output is on its way, or `timeout` seconds; None: without end."""
        for port in self.ports:
            port.flush(timeout)

    def reset(self) -> None:
        """System reset."""
        for port in self.ports:
            port.reset()

    def close(self) -> None:
        """End the thread and give back what was opened here; the VM must be closed before."""
        self.loop.close()
        for port in self.ports:
            port.close()
