"""The test device of kvm-unit-tests: ports that read back, interrupt lines, memory behind MMIO.

Source: QEMU's pc-testdev, as kvm-unit-tests' x86 tests use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from cpufw.core.vmstate import Subsection, VMState, blob

from .debug_console import BOCHS_PORT

TESTDEV_PORT, TESTDEV_IRQ_PORT, TESTDEV_MEMORY = 0xE0, 0x2000, 0xFF00_0000

_DATA, _FLUSH_PAGE, _DATA_BY_BYTES, _END = 0x0, 0x4, 0x8, 0xC  # offsets
_DATA_BYTES = 4
_FIRST_IRQ = TESTDEV_IRQ_PORT - TESTDEV_PORT  # offset
_IRQ_LINES = 24
_MEMORY_BYTES = 0x1_0000


class Testdev:
    """Ports 0xe0-0xeb and 0x2000-0x2017.

    0xe0-0xe3 read back what was written, in accesses of any size; so do 0xe8-0xeb, the same four
    bytes, but that an access which begins at 0xe9 is the debug console's. A byte written to
    0x2000 + n sets interrupt line n: `set_irq(n, level)`. The double word at 0xe4 names a page that
    QEMU unmaps for a moment, so that the guest's next access to it faults in the host: taken
    without effect, since no result depends on it.
    """

    __test__ = False  # not a test class of pytest

    vmstate: ClassVar[VMState] = VMState("testdev", 1, blob("data", _DATA_BYTES, attr="_data"))

    def __init__(self, set_irq: Callable[[int, bool], None]) -> None:
        self.ports = (
            range(TESTDEV_PORT, BOCHS_PORT),
            range(BOCHS_PORT + 1, TESTDEV_PORT + _END),
            range(TESTDEV_IRQ_PORT, TESTDEV_IRQ_PORT + _IRQ_LINES),
        )
        self._set_irq = set_irq
        self._data = bytearray(_DATA_BYTES)

    def reset(self) -> None:
        """Zero what reads back."""
        self._data[:] = bytes(_DATA_BYTES)

    def read(self, offset: int, size: int) -> int:
        """What was written there; see PortDevice."""
        if offset >= _FIRST_IRQ or _FLUSH_PAGE <= offset < _DATA_BY_BYTES:
            return (1 << 8 * size) - 1
        start = offset % _DATA_BYTES
        return int.from_bytes(self._data[start : start + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Keep the value, or set a line; see PortDevice."""
        if offset >= _FIRST_IRQ:
            if size == 1:
                self._set_irq(offset - _FIRST_IRQ, bool(value))
        elif not _FLUSH_PAGE <= offset < _DATA_BY_BYTES:
            start = offset % _DATA_BYTES
            end = min(start + size, _DATA_BYTES)
            self._data[start:end] = value.to_bytes(size, "little")[: end - start]


class TestdevMemory:
    """64 KiB from 0xff000000 that are memory, but reached by exits."""

    __test__ = False

    vmstate: ClassVar[VMState] = VMState(
        "testdev-memory",
        1,
        Subsection(
            "testdev-memory/used",
            blob("memory", _MEMORY_BYTES, attr="_memory", default=bytes(_MEMORY_BYTES)),
        ),
    )

    def __init__(self) -> None:
        self.addresses = range(TESTDEV_MEMORY, TESTDEV_MEMORY + _MEMORY_BYTES)
        self._memory = bytearray(_MEMORY_BYTES)

    def reset(self) -> None:
        """Zero it."""
        self._memory[:] = bytes(_MEMORY_BYTES)

    def read(self, offset: int, size: int) -> int:
        """The bytes there; see MmioDevice."""
        return int.from_bytes(self._memory[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Store the bytes there; see MmioDevice."""
        end = min(offset + size, _MEMORY_BYTES)
        self._memory[offset:end] = value.to_bytes(size, "little")[: end - offset]
