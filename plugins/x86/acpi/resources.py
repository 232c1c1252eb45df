"""Resource descriptors: what a device's `_CRS` says it takes (ACPI 6.5, 6.4)."""

from __future__ import annotations

import struct

from cpufw_x86.acpi.aml import buffer

_END = b"\x79\x00"  # a checksum of 0 stands for a good one

# Address space descriptors, table 6.46 and following.
_MEMORY, _IO, _BUS_NUMBERS = 0, 1, 2
_FIXED_AT_BOTH_ENDS = 0b1100  # and forwarded to what is behind (a ResourceProducer)
_ENTIRE_RANGE = 3  # of ISA ports
_READ_WRITE = 1


def template(*descriptors: bytes) -> bytes:
    """`ResourceTemplate () {descriptors}`."""
    return buffer(b"".join(descriptors) + _END)


def ports(wanted: range) -> bytes:
    """I/O ports that decode 16 bits, at most 255 of them."""
    return struct.pack("<BBHHBB", 0x47, 1, wanted.start, wanted.start, 1, len(wanted))


def irq(number: int) -> bytes:
    """An ISA interrupt line, 0 to 15: edge-triggered, active high, not shared."""
    return struct.pack("<BH", 0x22, 1 << number)


def interrupt(gsi: int) -> bytes:
    """A global system interrupt: a level, active high, not shared."""
    consumer = 1
    return struct.pack("<BHBBI", 0x89, 6, consumer, 1, gsi)


def memory(address: int, size: int) -> bytes:
    """Read-write memory below 4 GiB."""
    return struct.pack("<BHBII", 0x86, 9, _READ_WRITE, address, size)


def bus_numbers(numbers: range) -> bytes:
    """Bus numbers that a host bridge has."""
    return _window(0x88, "H", _BUS_NUMBERS, 0, numbers)


def port_window(window: range) -> bytes:
    """I/O ports that a bridge forwards."""
    return _window(0x88, "H", _IO, _ENTIRE_RANGE, window)


def memory_window(window: range) -> bytes:
    """Memory that a bridge forwards."""
    if window.stop <= 1 << 32:
        return _window(0x87, "I", _MEMORY, _READ_WRITE, window)
    return _window(0x8A, "Q", _MEMORY, _READ_WRITE, window)


def _window(tag: int, number: str, kind: int, specific: int, window: range) -> bytes:
    granularity = translation = 0
    body = struct.pack(
        f"<BBB5{number}",
        kind,
        _FIXED_AT_BOTH_ENDS,
        specific,
        granularity,
        window.start,
        window.stop - 1,
        translation,
        len(window),
    )
    return struct.pack("<BH", tag, len(body)) + body
