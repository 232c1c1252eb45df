"""The ports a guest leaves by and talks through, as reached over the bus."""

from __future__ import annotations

import pytest

from cpufw_x86.devices import I8042, DebugConsole, DebugExit, Port92, PortBus, ResetControl


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (0x10, 0x21), (0x7F, 0xFF)])
def test_debug_exit_status_is_never_success(value: int, status: int) -> None:
    bus, statuses = PortBus(), list[int]()
    bus.add(DebugExit(statuses.append))
    for size in (1, 2, 4):
        bus.write(0xF4, size, value)
    assert statuses == [status] * 3


@pytest.mark.parametrize(
    ("port", "value", "resets"),
    [
        (0xCF9, 0x06, 1),
        (0xCF9, 0x0E, 1),
        (0xCF9, 0x04, 1),
        (0xCF9, 0x02, 0),  # the first of the two writes of a hard reset
        (0x64, 0xFE, 1),
        (0x64, 0xF0, 1),  # pulses the other lines too
        (0x64, 0xFF, 0),  # pulses none
        (0x64, 0xAA, 0),  # another keyboard controller command
        (0x92, 0x03, 1),
        (0x92, 0x02, 0),  # A20 only
    ],
)
def test_reset_ports(port: int, value: int, resets: int) -> None:
    bus, heard = PortBus(), list[str]()
    bus.add(ResetControl(lambda: heard.append("reset")))
    bus.add(I8042(lambda: heard.append("reset"), list[bool]().append))
    bus.add(Port92(lambda: heard.append("reset")))
    bus.write(port, 1, value)
    assert len(heard) == resets


def test_reset_control_reads_back_the_kind_of_reset() -> None:
    bus = PortBus()
    bus.add(ResetControl(lambda: None))
    assert bus.read(0xCF9, 1) == 0
    bus.write(0xCF9, 1, 0x02)
    assert bus.read(0xCF9, 1) == 0x02


@pytest.mark.parametrize("port", [0xE9, 0x402])
def test_debug_console_passes_bytes_on_in_order(port: int) -> None:
    bus, text = PortBus(), bytearray()
    bus.add(DebugConsole(text.extend, port))
    assert bus.read(port, 1) == 0xE9
    for byte in b"hello\n":
        bus.write(port, 1, byte)
    bus.write(port, 2, 0x6261)
    assert text == b"hello\nab"
