"""A serial port whose registers the C run loop serves."""

from __future__ import annotations

from cpufw.errors import KvmError

from .native import ffi, lib


class Uart16550:
    """A 16550A UART: a guest's console, made by `VM.add_uart`.

    Output waits in a buffer of 64 KiB until `drain`. `VCPU.run` returns `OutputReady` when a
    line has waited for 20 ms or the buffer is three quarters full, and no byte is ever dropped.
    An output without a newline does not wake anybody: drain on a tick too.
    """

    def __init__(self) -> None:
        device = lib.cpufw_uart_new()
        if not device:
            raise KvmError("no memory for a UART")
        self._device = ffi.gc(device, lib.cpufw_uart_free)

    def drain(self) -> bytes:
        """Take what the guest has sent since the last time. Any thread."""
        buffer = ffi.new("uint8_t[]", lib.CPUFW_UART_OUTPUT)
        length = lib.cpufw_uart_drain(self._device, buffer, lib.CPUFW_UART_OUTPUT)
        return bytes(ffi.buffer(buffer, length))

    def push(self, data: bytes) -> int:
        """Queue input for the guest; returns how many bytes there was room for. Any thread."""
        return int(lib.cpufw_uart_push(self._device, data, len(data)))

    def set_irq_fd(self, fd: int) -> None:
        """Write to this eventfd whenever the interrupt line rises (see `VM.irqfd`); -1: none.

        The descriptor stays the caller's and must stay open as long as it is set here.
        """
        lib.cpufw_uart_set_irq_fd(self._device, fd)
