"""A split virtqueue as the device sees it (VIRTIO 1.2, 2.7).

Nothing that the driver writes is trusted. What it must not do raises `DriverError`; after that
the queue is not to be used until it is reset.
"""

from __future__ import annotations

import struct
import threading
from typing import ClassVar

from cpufw.core.vmstate import VMState, boolean, u16, u32, u64
from cpufw.virtio.memory import GuestMemoryAccess

# 2.7.5, flags of a descriptor.
_NEXT, _WRITE, _INDIRECT = 1, 2, 4
_DESCRIPTOR = struct.Struct("<QIHH")  # addr, len, flags, next

_NO_INTERRUPT = 1  # 2.7.6, in the available ring's flags
_NO_NOTIFY = 1  # 2.7.8, in the used ring's flags

_MOST_BYTES = 1 << 32  # 2.7.5.2: a chain must not describe more

# Places in the rings, which are read and written as 16-bit numbers: flags, idx, then the entries.
_FLAGS, _IDX, _ENTRIES = 0, 1, 2


class DriverError(Exception):
    """The driver broke a rule of the specification; the message says which."""


class Chain:
    """A buffer that the driver made available: the parts to read, then the parts to write.

    Views share the guest's memory, which may change at any time: copy what must not.
    """

    __slots__ = ("head", "readable", "writable", "writable_at")

    def __init__(self, head: int) -> None:
        self.head = head
        self.readable: list[memoryview] = []
        self.writable: list[memoryview] = []
        self.writable_at: list[int] = []
        """The guest-physical address of each writable part."""


class Virtqueue:
    """A queue of at most `size_max` entries, a power of two.

    The transport sets `size`, `descriptors`, `available` and `used` as the driver says and calls
    `enable`; then `pop` and `push` move buffers. Not for two threads at once.
    """

    vmstate: ClassVar[VMState] = VMState(
        "virtqueue",
        1,
        u32("size"),
        boolean("ready"),
        u64("descriptors"),
        u64("available"),
        u64("used"),
        u16("next_available"),
        u16("next_used"),
        u16("signalled"),
    )

    def __init__(self, memory: GuestMemoryAccess, size_max: int) -> None:
        self._memory = memory
        self._fence = threading.Lock()
        self.size_max = size_max
        self.indirect = self.event_index = False
        """The features VIRTIO_F_INDIRECT_DESC and VIRTIO_F_EVENT_IDX, as negotiated."""
        self.reset()

    def reset(self) -> None:
        """Forget everything that the driver said."""
        self.size = self.size_max
        self.descriptors = self.available = self.used = 0
        self.ready = False
        self.next_available = self.next_used = 0
        self._is_silenced = False  # whether the driver was asked not to notify
        self.signalled = 0  # next_used as it was when an interrupt was last considered
        self._table = self._available = self._used = self._elements = memoryview(b"")

    def release(self) -> None:
        """Let go of the guest's memory, which can then be closed; `enable` maps it again."""
        self._table = self._available = self._used = self._elements = memoryview(b"")

    def enable(self) -> None:
        """Map the rings. Raises `DriverError` where the driver's size or addresses are wrong."""
        size = self.size
        if not 0 < size <= self.size_max or size & (size - 1):
            raise DriverError(
                f"queue size {size} is not a power of two from 1 to {self.size_max} (4.2.2.2)"
            )
        self._table = self._part("descriptor table", self.descriptors, 16, 16 * size)
        self._available = self._part("available ring", self.available, 2, 6 + 2 * size).cast("H")
        used = self._part("used ring", self.used, 4, 6 + 8 * size)
        self._used = used.cast("H")
        self._elements = used[4 : 4 + 8 * size].cast("I")
        self._is_silenced = bool(self._used[_FLAGS])
        self.ready = True

    def _part(self, name: str, address: int, alignment: int, size: int) -> memoryview:
        if address % alignment:
            raise DriverError(f"the {name} at {address:#x} is not aligned to {alignment} (2.7)")
        return self._bytes(name, address, size)

    def _bytes(self, name: str, address: int, size: int) -> memoryview:
        try:
            return self._memory.view(address, size)
        except LookupError:
            raise DriverError(f"the {name}, {size:#x} bytes at {address:#x}, is not RAM") from None

    # --- buffers the driver makes available ----------------------------------------------

    def pop(self) -> Chain | None:
        """The next buffer, or None; then the driver was asked to notify of further ones.

        While there are buffers it is asked not to. Raises `DriverError`.
        """
        if not self.ready:
            return None
        head = self._next_head()
        if head is None:
            self._want_notification(True)
            # The driver looks at this after it has written its index, which is read again only
            # after this was written: without the fence each could miss what the other wrote.
            self._full_fence()
            head = self._next_head()
            if head is None:
                return None
        self._want_notification(False)
        return self._chain(head)

    def put_back(self) -> None:
        """Make the buffer that `pop` returned last the next one again, if it is not used yet."""
        self.next_available = (self.next_available - 1) & 0xFFFF

    def _next_head(self) -> int | None:
        index = self._available[_IDX]
        waiting = (index - self.next_available) & 0xFFFF
        if not waiting:
            return None
        if waiting > self.size:
            raise DriverError(
                f"the available index went from {self.next_available} to {index}, more than the "
                f"{self.size} entries of the queue"
            )
        # Read after the index: a processor with x86's memory order keeps loads in order.
        head = self._available[_ENTRIES + self.next_available % self.size]
        self.next_available = (self.next_available + 1) & 0xFFFF
        return head

    def _want_notification(self, wanted: bool) -> None:
        if self.event_index:
            if wanted:  # else the index left there is behind already
                place = _ENTRIES + 4 * self.size
                self._used[place] = self.next_available
                self._memory.wrote(self.used + 2 * place, 2)
        elif wanted == self._is_silenced:
            self._used[_FLAGS] = 0 if wanted else _NO_NOTIFY
            self._is_silenced = not wanted
            self._memory.wrote(self.used, 2)

    def _chain(self, head: int) -> Chain:
        chain = Chain(head)
        table, entries, index = self._table, self.size, head
        indirect = False
        total = 0
        for _ in range(self.size_max + 1):  # one of them may refer to an indirect table
            if index >= entries:
                raise DriverError(f"descriptor {index} of a table of {entries}")
            # One copy: the driver cannot change what was checked.
            address, length, flags, following = _DESCRIPTOR.unpack_from(table, 16 * index)
            if flags & _INDIRECT:
                if indirect or not self.indirect or flags & _NEXT:
                    raise DriverError(f"an indirect table where none may be, flags {flags:#x}")
                table, entries = self._indirect_table(address, length)
                indirect, index = True, 0
                continue
            total += length
            if total > _MOST_BYTES:
                raise DriverError("a descriptor chain of more than 4 GiB (2.7.5.2)")
            self._add(chain, address, length, flags)
            if not flags & _NEXT:
                return chain
            index = following
        raise DriverError(f"a descriptor chain of more than {self.size_max}, or a loop (2.7.5.3.1)")

    def _indirect_table(self, address: int, length: int) -> tuple[memoryview, int]:
        if not length or length % 16 or length > 16 * self.size_max:
            raise DriverError(
                f"an indirect table of {length} bytes, expected 1 to {self.size_max} descriptors "
                "of 16 (2.7.5.3)"
            )
        return self._bytes("indirect table", address, length), length // 16

    def _add(self, chain: Chain, address: int, length: int, flags: int) -> None:
        if flags & _WRITE:
            chain.writable.append(self._bytes("buffer", address, length))
            chain.writable_at.append(address)
        elif chain.writable:
            raise DriverError("a device-readable part after a device-writable one (2.7.4.2)")
        else:
            chain.readable.append(self._bytes("buffer", address, length))

    # --- buffers the device has used ------------------------------------------------------

    def push(self, chain: Chain, written: int) -> bool:
        """Give a buffer back with `written` bytes in it; whether the driver wants an interrupt."""
        for address, part in zip(chain.writable_at, chain.writable, strict=True):
            self._memory.wrote(address, len(part))
        place = 2 * (self.next_used % self.size)
        self._elements[place] = chain.head
        self._elements[place + 1] = written
        self.next_used = (self.next_used + 1) & 0xFFFF
        # The entry is written before the index: x86 keeps stores in order.
        self._used[_IDX] = self.next_used
        self._memory.wrote(self.used, 4 + 8 * self.size)
        return self._interrupt_is_wanted()

    def _interrupt_is_wanted(self) -> bool:
        # The index must be visible before it is read what the driver wants: it does the opposite.
        self._full_fence()
        if not self.event_index:
            return not self._available[_FLAGS] & _NO_INTERRUPT
        event = self._available[_ENTRIES + self.size]
        since, self.signalled = self.signalled, self.next_used
        # 2.7.10: whether next_used went past event + 1 since then, in 16-bit arithmetic.
        return (self.next_used - event - 1) & 0xFFFF < (self.next_used - since) & 0xFFFF

    def _full_fence(self) -> None:
        """Make stores visible before anything is loaded, which x86 does not do by itself.

        Taking a lock is a locked instruction, and that is a full fence there (SDM vol. 3A 9.2).
        """
        with self._fence:
            pass
