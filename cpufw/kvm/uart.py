"""A serial port whose registers the C run loop serves."""

from __future__ import annotations

from cpufw.errors import KvmError

from .native import ffi, lib

BREAK: int = lib.CPUFW_UART_BREAK
"""A break, among the characters of `get_state`."""

_REGISTERS = (
    "ier",
    "fcr",
    "lcr",
    "mcr",
    "scr",
    "line_errors",
    "modem_deltas",
    "modem_lines",
    "thr_empty",
    "rts_used",
    "line",
)


class Uart16550:
    """A 16550A UART: a guest's console, made by `VM.add_uart`.

    Output waits in a buffer of 64 KiB until `drain`, and a guest that writes more waits with it;
    only a vCPU that is kicked meanwhile finishes its access. `VCPU.run` returns `OutputReady` when
    a line has waited for 20 ms or the buffer is three quarters full; an output without a newline
    does not wake anybody. With `set_output_fd` it returns only when the buffer is full, and the
    descriptor tells of the rest.
    """

    def __init__(self) -> None:
        device = lib.cpufw_uart_new()
        if not device:
            raise KvmError("no memory for a UART")
        self._device = ffi.gc(device, lib.cpufw_uart_free)

    def drain(self) -> bytes:
        """Take what the guest has sent since the last time."""
        buffer = ffi.new("uint8_t[]", lib.CPUFW_UART_OUTPUT)
        length = lib.cpufw_uart_drain(self._device, buffer, lib.CPUFW_UART_OUTPUT)
        return bytes(ffi.buffer(buffer, length))

    @property
    def is_full(self) -> bool:
        """Whether the guest's next byte would have to wait for `drain`."""
        return bool(lib.cpufw_uart_waiting(self._device) >= lib.CPUFW_UART_OUTPUT)

    @property
    def has_output(self) -> bool:
        """Whether there is something to drain."""
        return bool(lib.cpufw_uart_waiting(self._device))

    def discard_output(self, on: bool = True) -> None:
        """Let what the guest sends vanish from now on."""
        lib.cpufw_uart_discard(self._device, on)

    def push(self, data: bytes) -> int:
        """Queue input for the guest; returns how many bytes there was room for.

        A guest that takes interrupts and has used RTS gets it only while RTS is set.
        """
        return int(lib.cpufw_uart_push(self._device, data, len(data)))

    def push_break(self) -> bool:
        """Queue a break behind the input; False when there is no room."""
        return bool(lib.cpufw_uart_push_break(self._device))

    @property
    def receives_by_interrupt(self) -> bool:
        """Whether the guest wants an interrupt for received data (IER bit 0)."""
        return bool(lib.cpufw_uart_receives_by_interrupt(self._device))

    def set_irq_fd(self, fd: int) -> None:
        """Write to this eventfd whenever the interrupt line rises (see `VM.irqfd`); -1: none.

        The descriptor stays the caller's and must stay open as long as it is set here.
        """
        lib.cpufw_uart_set_irq_fd(self._device, fd)

    def set_output_fd(self, fd: int) -> None:
        """Write to this eventfd when output begins to wait, once until all is drained; -1: none."""
        lib.cpufw_uart_set_output_fd(self._device, fd)

    def set_room_fd(self, fd: int) -> None:
        """Write to this eventfd when there is room again after `push` refused something."""
        lib.cpufw_uart_set_room_fd(self._device, fd)

    def reset(self) -> None:
        """Registers and FIFO as at power-on; output and input on its way stay."""
        lib.cpufw_uart_reset(self._device)

    def get_state(self) -> dict[str, int | list[int]]:
        """All the guest can see of it, but output that was not drained: plain numbers by name.

        `fifo` and `input` (not received yet) hold characters, `BREAK` among them.
        """
        state = ffi.new("struct cpufw_uart_state *")
        lib.cpufw_uart_get_state(self._device, state)
        values: dict[str, int | list[int]] = {name: getattr(state, name) for name in _REGISTERS}
        values["divisor"] = state.divisor[0] | state.divisor[1] << 8
        values["fifo"] = list(state.fifo[0 : state.fifo_length])
        values["input"] = list(state.input[0 : state.input_length])
        return values

    def set_state(self, values: dict[str, int | list[int]]) -> None:
        """Give it the state that `get_state` returned. Raises KvmError for one that cannot be."""
        try:
            divisor, fifo, queued = values["divisor"], values["fifo"], values["input"]
            state = ffi.new(
                "struct cpufw_uart_state *",
                {
                    **{name: values[name] for name in _REGISTERS},
                    "divisor": (divisor & 0xFF, divisor >> 8),  # type: ignore[operator]
                    "fifo": fifo,
                    "fifo_length": len(fifo),  # type: ignore[arg-type]
                    "input": queued,
                    "input_length": len(queued),  # type: ignore[arg-type]
                },
            )
        except (KeyError, TypeError, IndexError, OverflowError) as error:
            raise KvmError(f"this is not the state of a UART: {error}") from None
        if lib.cpufw_uart_set_state(self._device, state):
            raise KvmError("this is not the state of a UART: its FIFO is too long")
