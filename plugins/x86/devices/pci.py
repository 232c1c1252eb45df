"""PCI with nothing on it: a host bridge, by configuration mechanism #1 and as memory.

The bridge is what QEMU's pc calls its Intel 440FX (8086:1237, subsystem 1af4:1100): SeaBIOS makes
the area from 0xc0000 to 0xfffff writable only on chipsets it knows, and looks for fw_cfg only where
the subsystem says QEMU. Sources: PCI Local Bus Specification 3.0, 3.2.2.3.2 and 6.1; Intel 82441FX
datasheet, 3.2.
"""

from __future__ import annotations

import threading
from typing import ClassVar

from cpufw.core.vmstate import VMState, blob, u32
from cpufw_x86.memory_map import PCI_CONFIG

CONFIG_ADDRESS, CONFIG_DATA = 0xCF8, 0xCFC
_FUNCTION_BYTES = 0x1000  # of memory: PCI Express 5.0, 7.2.2

_DATA = CONFIG_DATA - CONFIG_ADDRESS  # offset
_ENABLE = 1 << 31
_ADDRESS_BITS = 0x80FF_FFFC
_NOBODY = 0xFFFF
_REGISTER = 0xFC
_FUNCTION_SHIFT = 8
_CONFIG_BYTES = 256

_HEADER = {  # the bridge's registers that are not 0, little-endian
    0x00: (0x8086).to_bytes(2, "little"),  # vendor
    0x02: (0x1237).to_bytes(2, "little"),  # device
    0x04: (0x0006).to_bytes(2, "little"),  # command: memory space, bus master; always on
    0x06: (0x0280).to_bytes(2, "little"),  # status: fast back-to-back, medium DEVSEL timing
    0x08: b"\x02",  # revision
    0x09: bytes((0x00, 0x00, 0x06)),  # class: host bridge
    0x2C: (0x1AF4).to_bytes(2, "little"),  # subsystem vendor
    0x2E: (0x1100).to_bytes(2, "little"),  # subsystem
}
# Programmable attribute map, one nibble (read enable, write enable) for each part of
# 0xc0000-0xfffff. Kept as written, without effect: it is all RAM, always.
_PAM = range(0x59, 0x60)
_SMRAM = 0x72
_WRITABLE = {**dict.fromkeys(_PAM, 0x33), _PAM[0]: 0x30, _SMRAM: 0x7F}
_SMRAM_AT_RESET = 0x02


class PciHost:
    """Ports 0xcf8 and 0xcfc-0xcff, and the one function on bus 0, 00:00.0.

    The address register answers double words only, as the specification has it, so that the ports
    behind its first can be others' (0xcf9 resets). Functions that are not there read all ones.
    """

    vmstate: ClassVar[VMState] = VMState(
        "pci-host",
        1,
        u32("address", attr="_address"),
        blob("bridge", _CONFIG_BYTES, attr="_bridge"),
    )

    def __init__(self) -> None:
        self.ports = (
            range(CONFIG_ADDRESS, CONFIG_ADDRESS + 1),
            range(CONFIG_DATA, CONFIG_DATA + 4),
        )
        self._lock = threading.Lock()
        self._bridge = bytearray(_CONFIG_BYTES)
        self.reset()

    def reset(self) -> None:
        """The registers as after power-on."""
        with self._lock:
            self._address = 0
            self._bridge[:] = bytes(_CONFIG_BYTES)
            for register, value in _HEADER.items():
                self._bridge[register : register + len(value)] = value
            self._bridge[_SMRAM] = _SMRAM_AT_RESET

    def read(self, offset: int, size: int) -> int:
        """The address, or `size` bytes of the function it selects; see PortDevice."""
        if offset < _DATA:
            return self._address if size == 4 else (1 << 8 * size) - 1
        register = (self._address & _REGISTER) + offset - _DATA
        return self.read_config(self._selected, register, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Select a function, or write its registers; see PortDevice."""
        if offset >= _DATA:
            register = (self._address & _REGISTER) + offset - _DATA
            self.write_config(self._selected, register, size, value)
        elif size == 4:
            self._address = value & _ADDRESS_BITS

    @property
    def _selected(self) -> int:
        """The function that the address names; one that is not there while it is disabled."""
        address = self._address
        return (address & ~_ENABLE) >> _FUNCTION_SHIFT if address & _ENABLE else _NOBODY

    def read_config(self, function: int, register: int, size: int) -> int:
        """`size` bytes of a function's registers; all ones where there is no such function.

        `function` is bus, device and function number, in 8, 5 and 3 bits.
        """
        if function:
            return (1 << 8 * size) - 1
        return int.from_bytes(self._bridge[register : register + size], "little")

    def write_config(self, function: int, register: int, size: int, value: int) -> None:
        """Write those bits of a function's registers that can be."""
        if function:
            return
        with self._lock:
            for at in range(register, min(register + size, _CONFIG_BYTES)):
                mask = _WRITABLE.get(at, 0)
                byte = value >> 8 * (at - register) & mask
                self._bridge[at] = self._bridge[at] & ~mask | byte


class PciEcam:
    """The configuration space of bus 0 as memory: 4 KiB for each function."""

    def __init__(self, host: PciHost) -> None:
        self.addresses = PCI_CONFIG
        self._host = host

    def read(self, offset: int, size: int) -> int:
        """Registers of the function whose page it is, 0 beyond its 256 bytes; see MmioDevice."""
        return self._host.read_config(*divmod(offset, _FUNCTION_BYTES), size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write them; see MmioDevice."""
        self._host.write_config(*divmod(offset, _FUNCTION_BYTES), size, value)
