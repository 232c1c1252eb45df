"""The keyboard controller, with no keyboard behind it and no port for a mouse.

Every command that asks for an answer gets one at once: drivers wait half a second for each that
does not come. Sources: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and auxiliary
device controller"; the Intel 8242 datasheet.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping
from typing import ClassVar

from cpufw.core.vmstate import VMState, blob, boolean, u8

from .port_device import ByteRegisters

DATA_PORT, COMMAND_PORT = 0x60, 0x64
KEYBOARD_IRQ = 1

_DATA, _COMMAND = 0, COMMAND_PORT - DATA_PORT  # offsets

# The status register.
_OUTPUT_FULL = 1 << 0
_SYSTEM = 1 << 2
_LAST_WAS_COMMAND = 1 << 3
_UNLOCKED = 1 << 4
_FROM_MOUSE = 1 << 5
_TIMEOUT = 1 << 6
_OF_OUTPUT = _OUTPUT_FULL | _FROM_MOUSE | _TIMEOUT

# The controller command byte, which is byte 0 of the controller's RAM.
_INTERRUPT = 1 << 0
_SYSTEM_FLAG = 1 << 2
_KEYBOARD_OFF = 1 << 4
_MOUSE_OFF = 1 << 5

# The output port.
_NOT_RESET = 1 << 0  # the reset line, active low
_A20 = 1 << 1


class Command(enum.IntEnum):
    """What is written to port 0x64."""

    READ_RAM = 0x20  # to 0x3f
    WRITE_RAM = 0x60  # to 0x7f
    MOUSE_DISABLE = 0xA7
    MOUSE_ENABLE = 0xA8
    MOUSE_TEST = 0xA9
    SELF_TEST = 0xAA
    KEYBOARD_TEST = 0xAB
    KEYBOARD_DISABLE = 0xAD
    KEYBOARD_ENABLE = 0xAE
    READ_INPUT_PORT = 0xC0
    READ_OUTPUT_PORT = 0xD0
    WRITE_OUTPUT_PORT = 0xD1
    WRITE_KEYBOARD_BUFFER = 0xD2
    WRITE_MOUSE_BUFFER = 0xD3
    WRITE_MOUSE = 0xD4
    PULSE = 0xF0  # to 0xff: pulses those of the output port's bits 0-3 that are 0 here


_RAM_BYTES = 32
_ANSWERS: Mapping[int, int] = {
    Command.SELF_TEST: 0x55,
    Command.KEYBOARD_TEST: 0x00,
    Command.MOUSE_TEST: 0x01,  # clock line stuck low: nothing is connected
    Command.READ_INPUT_PORT: 0x80,  # keyboard not locked
}
_COMMAND_BYTE_BITS: Mapping[int, tuple[int, int]] = {  # cleared, set
    Command.MOUSE_DISABLE: (0, _MOUSE_OFF),
    Command.MOUSE_ENABLE: (_MOUSE_OFF, 0),
    Command.KEYBOARD_DISABLE: (0, _KEYBOARD_OFF),
    Command.KEYBOARD_ENABLE: (_KEYBOARD_OFF, 0),
}
_WITH_DATA = (
    Command.WRITE_OUTPUT_PORT,
    Command.WRITE_KEYBOARD_BUFFER,
    Command.WRITE_MOUSE_BUFFER,
    Command.WRITE_MOUSE,
)
_NO_ANSWER = 0xFE  # what the controller says for a device that is silent, with _TIMEOUT


class I8042(ByteRegisters):
    """Ports 0x60 and 0x64.

    `on_reset` is called when the guest pulls the reset line: command 0xfe, or 0 in bit 0 of the
    output port. `set_irq(level)` is IRQ 1, raised while there is something to read if the command
    byte says so; it is called with the lock held and must not call back. Nothing is masked with
    A20 off: KVM has no A20.
    """

    vmstate: ClassVar[VMState] = VMState(
        "i8042",
        1,
        blob("ram", _RAM_BYTES, attr="_ram"),
        u8("output", attr="_output"),
        u8("output_port", attr="_output_port"),
        u8("status", attr="_status"),
        boolean("awaits_data", attr="_awaits_data"),
        u8("command", attr="_command"),
        post_load="update_irq",
    )

    def __init__(self, on_reset: Callable[[], None], set_irq: Callable[[bool], None]) -> None:
        self.ports = (range(DATA_PORT, DATA_PORT + 1), range(COMMAND_PORT, COMMAND_PORT + 1))
        self._on_reset = on_reset
        self._set_irq = set_irq
        self._level = False
        self._lock = threading.Lock()
        self._ram = bytearray(_RAM_BYTES)
        self.reset()

    def reset(self) -> None:
        """Nothing to read, the devices off, A20 on, no interrupt."""
        with self._lock:
            self._ram[:] = bytes(_RAM_BYTES)
            self._ram[0] = _SYSTEM_FLAG | _KEYBOARD_OFF | _MOUSE_OFF
            self._output = 0
            self._output_port = _NOT_RESET | _A20
            self._status = _SYSTEM | _UNLOCKED
            self._awaits_data = False
            self._command = 0
            self.update_irq()

    def update_irq(self) -> None:
        """Let the interrupt line follow the registers."""
        to_read = self._status & (_OUTPUT_FULL | _FROM_MOUSE) == _OUTPUT_FULL
        level = to_read and bool(self._ram[0] & _INTERRUPT)
        if level != self._level:
            self._level = level
            self._set_irq(level)

    def read_byte(self, offset: int) -> int:
        """The output buffer, which that empties, or the status."""
        if offset == _COMMAND:
            return self._status
        if offset != _DATA:
            return 0xFF
        with self._lock:
            self._status &= ~_OF_OUTPUT
            self.update_irq()
            return self._output

    def write_byte(self, offset: int, value: int) -> None:
        """A command at 0x64, its data (or a byte for the keyboard) at 0x60."""
        if offset not in (_DATA, _COMMAND):
            return
        with self._lock:
            if offset == _COMMAND:
                self._status |= _LAST_WAS_COMMAND
                reset = self._obey(value)
            else:
                self._status &= ~_LAST_WAS_COMMAND
                reset = self._take(value)
            self.update_irq()
        if reset:
            self._on_reset()

    def _obey(self, command: int) -> bool:
        """Begin or finish a command; whether it resets the machine."""
        self._awaits_data = False
        if command >= Command.PULSE:
            return not command & _NOT_RESET
        group = command & ~(_RAM_BYTES - 1)
        if group == Command.READ_RAM:
            self._answer(self._ram[command - group])
        elif group == Command.WRITE_RAM or command in _WITH_DATA:
            self._awaits_data, self._command = True, command
        elif command == Command.READ_OUTPUT_PORT:
            self._answer(self._output_port)
        elif command in _ANSWERS:
            self._answer(_ANSWERS[command])
        elif command in _COMMAND_BYTE_BITS:
            clear, set_ = _COMMAND_BYTE_BITS[command]
            self._ram[0] = self._ram[0] & ~clear | set_
        return False

    def _take(self, value: int) -> bool:
        """A byte at the data port; whether it resets the machine."""
        if not self._awaits_data:
            self._answer(_NO_ANSWER, _TIMEOUT)
            return False
        self._awaits_data = False
        match self._command:
            case Command.WRITE_OUTPUT_PORT:
                self._output_port = value
                return not value & _NOT_RESET
            case Command.WRITE_KEYBOARD_BUFFER | Command.WRITE_MOUSE_BUFFER:
                # Without _FROM_MOUSE even for the mouse's: that is how drivers see that the
                # controller has no port for one.
                self._answer(value)
            case Command.WRITE_MOUSE:
                self._answer(_NO_ANSWER, _FROM_MOUSE | _TIMEOUT)
            case _:
                self._ram[self._command & _RAM_BYTES - 1] = value
        return False

    def _answer(self, value: int, more: int = 0) -> None:
        self._output = value
        self._status = self._status & ~_OF_OUTPUT | _OUTPUT_FULL | more
