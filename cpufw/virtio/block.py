"""The virtio block device over a raw image (VIRTIO 1.2, 5.2)."""

from __future__ import annotations

import enum
import errno
import struct
from time import monotonic_ns

from cpufw.core.disk import DiskCounts
from cpufw.virtio.device import VirtioDevice, fill, split, total
from cpufw.virtio.image import SECTOR, RawImage
from cpufw.virtio.ring import Chain, DriverError

# 5.2.3
SEG_MAX, READ_ONLY, BLK_SIZE, FLUSH = 1 << 2, 1 << 5, 1 << 6, 1 << 9

_QUEUE_SIZE = 256
_CONFIG = struct.Struct("<QII4xI")  # 5.2.4: capacity, size_max, seg_max, geometry, blk_size
_HEADER = struct.Struct("<I4xQ")  # 5.2.6: type, reserved, sector
_ID_BYTES = 20


class RequestType(enum.IntEnum):
    """What the driver can ask (5.2.6)."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8


class RequestStatus(enum.IntEnum):
    """The last byte of every request (5.2.6)."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


class _OutsideError(OSError):
    """A request for what is not on the disk."""


class BlockDevice(VirtioDevice):
    """A disk; `serial` is what the guest reads as its id, 20 bytes of it.

    Writing needs an image that is not read-only. A driver that cannot flush has each write on
    stable storage before it is told of its end. What the host refuses is an I/O error to the
    guest; `errors` counts these and `last_error` says what the last one was. `counts` is what was
    done.
    """

    name, device_id, queue_sizes = "blk", 2, (_QUEUE_SIZE,)

    def __init__(self, image: RawImage, serial: str = "") -> None:
        self.image = image
        self.serial = serial.encode("ascii", "replace")[:_ID_BYTES]
        self.errors, self.last_error = 0, ""
        self.counts = counts = DiskCounts()
        self._operations = {
            RequestType.IN: counts.reads,
            RequestType.OUT: counts.writes,
            RequestType.FLUSH: counts.flushes,
        }
        sectors = image.size // SECTOR
        super().__init__(
            SEG_MAX | BLK_SIZE | FLUSH | (READ_ONLY if image.read_only else 0),
            _CONFIG.pack(sectors, 0, _QUEUE_SIZE - 2, SECTOR),
        )

    def serve(self) -> bool:
        """Do one request."""
        queue = self.queues[0]
        chain = queue.pop()
        if chain is None:
            return False
        self.give_back(queue, chain, self._request(chain))
        return True

    def _request(self, chain: Chain) -> int:
        """How many bytes were written into the guest's memory."""
        header, data_out = split(chain.readable, _HEADER.size)
        room = total(chain.writable)
        if total(header) < _HEADER.size or not room:
            raise DriverError("a block request without a header of 16 bytes or a status (5.2.6)")
        kind, sector = _HEADER.unpack(b"".join(header))
        data_in, status = split(chain.writable, room - 1)
        operations = self._operations.get(kind)
        begin = monotonic_ns()
        try:
            result, written = self._do(kind, sector, data_in, data_out)
        except OSError as error:
            self.errors += 1
            self.last_error = f"{self.image.path}: {error.strerror or error}"
            result, written = RequestStatus.IOERR, 0
            if operations is not None and isinstance(error, _OutsideError):
                operations.invalid += 1
            elif operations is not None:
                operations.failed += 1
        else:
            if operations is not None:
                operations.done += 1
                operations.nanoseconds += monotonic_ns() - begin
        status[0][0] = result
        # 2.7.8.2: only bytes without a gap before them count.
        return room if written == room - 1 else written

    def _do(
        self, kind: int, sector: int, data_in: list[memoryview], data_out: list[memoryview]
    ) -> tuple[RequestStatus, int]:
        match kind:
            case RequestType.IN:
                size = self._check_place(sector, data_in)
                self.image.read(data_in, sector * SECTOR)
                self.counts.reads.bytes += size
                return RequestStatus.OK, size
            case RequestType.OUT:
                size = self._check_place(sector, data_out)
                if self.image.read_only:
                    raise OSError(errno.EROFS, "the image is read-only")
                self.image.write(data_out, sector * SECTOR)
                if not self.driver_features & FLUSH:
                    self.image.sync()
                self.counts.writes.bytes += size
                end = sector * SECTOR + size
                self.counts.highest_offset = max(self.counts.highest_offset, end)
                return RequestStatus.OK, 0
            case RequestType.FLUSH:
                self.image.sync()
                return RequestStatus.OK, 0
            case RequestType.GET_ID:
                return RequestStatus.OK, fill(data_in, self.serial.ljust(_ID_BYTES, b"\0"))
        return RequestStatus.UNSUPP, 0

    def _check_place(self, sector: int, data: list[memoryview]) -> int:
        size = total(data)
        if size % SECTOR or sector * SECTOR + size > self.image.size:
            text = f"{size} bytes at sector {sector} are not in the image"
            raise _OutsideError(errno.EINVAL, text)
        return size

    def problem(self) -> str:
        """How many requests failed, and why the last did."""
        many = f"{self.errors} I/O errors, the last" if self.errors > 1 else "an I/O error"
        return f"{many}: {self.last_error}" if self.errors else ""

    def close(self) -> None:
        """Close the image."""
        self.image.close()
