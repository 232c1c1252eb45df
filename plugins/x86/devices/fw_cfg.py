"""fw_cfg: named data for firmware and test programs, as on QEMU's PC.

Source: QEMU's docs/specs/fw_cfg. Items can only be read, by bytes or by DMA.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping
from typing import ClassVar

from cpufw.core.vmstate import VMState, u16, u32
from cpufw.errors import CpufwError, UsageError

FW_CFG_PORT = 0x510
FW_CFG_BYTES = 12

SIGNATURE, ID, FILE_DIRECTORY, FIRST_FILE = 0x00, 0x01, 0x19, 0x20

_SELECTOR, _DATA, _DMA_HIGH, _DMA_LOW = 0, 1, 4, 8  # offsets; the DMA address is big-endian
_HAS_DMA = 1 << 1 | 1 << 0  # of the item ID; bit 0 is the interface by bytes
_WRITE_CHANNEL = 1 << 14  # of a selector; means nothing since items cannot be written
_DMA_SIGNATURE = b"QEMU CFG"

_ACCESS = struct.Struct(">IIQ")  # FWCfgDmaAccess: control, length, address
_ERROR, _READ, _SKIP, _SELECT, _WRITE = (1 << bit for bit in range(5))
_CHUNK = 1 << 20

_DIRECTORY_ENTRY = struct.Struct(">IHH56s")
_LONGEST_NAME = 55
_FILES = 0x4000 - FIRST_FILE


class FwCfg:
    """Ports 0x510-0x51b.

    `items` are the numbered items; the signature, the feature bits and the file directory are
    added. DMA goes through `read_memory(address, length)`, which returns what there is of the
    bytes at a guest-physical address, and `write_memory(address, data)`, which raises a
    `CpufwError` where there is no RAM; a DMA that fails tells the guest so.
    """

    vmstate: ClassVar[VMState] = VMState(
        "fw-cfg",
        1,
        u16("selector", attr="_selector"),
        u32("position", attr="_position"),
        u32("dma_high", attr="_dma_high"),
    )

    def __init__(
        self,
        items: Mapping[int, bytes],
        *,
        read_memory: Callable[[int, int], bytes],
        write_memory: Callable[[int, bytes], None],
    ) -> None:
        self.ports = range(FW_CFG_PORT, FW_CFG_PORT + FW_CFG_BYTES)
        self._items = dict(items)
        self._files: dict[str, bytes] = {}
        self._read_memory, self._write_memory = read_memory, write_memory
        self._lock = threading.Lock()
        self.put(SIGNATURE, b"QEMU")
        self.put(ID, _HAS_DMA.to_bytes(4, "little"))
        self._list_files()
        self.reset()

    def reset(self) -> None:
        """Nothing read yet, of the first item."""
        with self._lock:
            self._selector = SIGNATURE
            self._position = 0
            self._dma_high = 0

    # --- The machine's side -------------------------------------------------------------

    def put(self, key: int, data: bytes) -> None:
        """Give the item `key` its data, or other data."""
        self._items[key] = data

    def add_file(self, name: str, data: bytes) -> None:
        """Add a named file; the guest finds its key in the directory, sorted by name.

        Raises `UsageError` for a name that is taken, too long (55 bytes) or not printable ASCII.
        """
        if not (name.isascii() and name.isprintable() and 0 < len(name) <= _LONGEST_NAME):
            raise UsageError(
                f"fw_cfg file name '{name}' is not valid, expected 1 to {_LONGEST_NAME} printable "
                "ASCII characters"
            )
        if name in self._files:
            raise UsageError(f"there is a fw_cfg file '{name}' already; give the other a new name")
        if len(self._files) == _FILES:
            raise UsageError(f"fw_cfg has room for {_FILES} files, not for '{name}' too")
        self._files[name] = data
        self._list_files()

    @property
    def files(self) -> Mapping[str, bytes]:
        """The files by name; setting it gives the guest these and no others."""
        return dict(self._files)

    @files.setter
    def files(self, files: Mapping[str, bytes]) -> None:
        self._files.clear()
        for name, data in files.items():
            self.add_file(name, data)

    def _list_files(self) -> None:
        files = sorted(self._files.items())
        entries = [len(files).to_bytes(4, "big")]
        for key, (name, data) in enumerate(files, FIRST_FILE):
            self._items[key] = data
            entries.append(_DIRECTORY_ENTRY.pack(len(data), key, 0, name.encode()))
        self._items[FILE_DIRECTORY] = b"".join(entries)

    # --- The guest's side ---------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """The next bytes of the item, or the DMA register's signature; see PortDevice."""
        if offset == _DATA:
            with self._lock:
                return int.from_bytes(self._next(size), "little")
        if offset >= _DMA_HIGH:
            start = offset - _DMA_HIGH
            return int.from_bytes(_DMA_SIGNATURE[start : start + size], "little")
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Select an item with a word, or start a DMA with double words; see PortDevice."""
        if offset == _SELECTOR and size == 2:
            with self._lock:
                self._select(value)
        elif offset in (_DMA_HIGH, _DMA_LOW) and size == 4:
            half = int.from_bytes(value.to_bytes(4, "little"), "big")
            with self._lock:
                if offset == _DMA_HIGH:
                    self._dma_high = half
                else:
                    address = self._dma_high << 32 | half
                    self._dma_high = 0
                    self._transfer(address)

    def _select(self, key: int) -> None:
        self._selector, self._position = key & ~_WRITE_CHANNEL & 0xFFFF, 0

    def _next(self, length: int) -> bytes:
        """The next `length` bytes of the item; zeros after its end."""
        item = self._items.get(self._selector, b"")
        there = item[self._position : self._position + length]
        self._position = min(self._position + length, len(item))
        return there.ljust(length, b"\0")

    def _transfer(self, address: int) -> None:
        """Do the access whose description is at `address`, and note there how it went."""
        try:
            description = self._read_memory(address, _ACCESS.size)
            if len(description) < _ACCESS.size:
                return  # there is nowhere to tell the guest
            control, length, target = _ACCESS.unpack(description)
            failed = not self._access(control, length, target)
            self._write_memory(address, (_ERROR if failed else 0).to_bytes(4, "big"))
        except CpufwError:
            return  # the description itself is not in RAM

    def _access(self, control: int, length: int, target: int) -> bool:
        """Whether all that `control` asks for could be done."""
        if control & _SELECT:
            self._select(control >> 16)
        if control & _READ:
            try:
                for start in range(0, length, _CHUNK):
                    self._write_memory(target + start, self._next(min(_CHUNK, length - start)))
            except CpufwError:
                return False
        elif control & _WRITE:
            return False
        elif control & _SKIP:
            item = self._items.get(self._selector, b"")
            self._position = min(self._position + length, len(item))
        return True
