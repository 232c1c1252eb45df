"""virtio over memory-mapped registers, version 2 (VIRTIO 1.2, 4.2)."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable

from cpufw.core.vmstate import VMState, blob, nested_list, text, u8, u32, u64
from cpufw.errors import StateError
from cpufw.virtio.device import VirtioDevice
from cpufw.virtio.memory import GuestMemoryAccess
from cpufw.virtio.ring import DriverError, Virtqueue
from cpufw.virtio.worker import Worker

REGISTER_BYTES = 0x200  # registers up to 0x100, then the device's configuration


class Register(enum.IntEnum):
    """Offsets of the registers (4.2.2, table 4.1)."""

    MAGIC_VALUE = 0x000
    VERSION = 0x004
    DEVICE_ID = 0x008
    VENDOR_ID = 0x00C
    DEVICE_FEATURES = 0x010
    DEVICE_FEATURES_SEL = 0x014
    DRIVER_FEATURES = 0x020
    DRIVER_FEATURES_SEL = 0x024
    QUEUE_SEL = 0x030
    QUEUE_NUM_MAX = 0x034
    QUEUE_NUM = 0x038
    QUEUE_READY = 0x044
    QUEUE_NOTIFY = 0x050
    INTERRUPT_STATUS = 0x060
    INTERRUPT_ACK = 0x064
    STATUS = 0x070
    QUEUE_DESC_LOW = 0x080
    QUEUE_DESC_HIGH = 0x084
    QUEUE_DRIVER_LOW = 0x090
    QUEUE_DRIVER_HIGH = 0x094
    QUEUE_DEVICE_LOW = 0x0A0
    QUEUE_DEVICE_HIGH = 0x0A4
    SHM_LEN_LOW = 0x0B0
    SHM_BASE_HIGH = 0x0BC
    CONFIG_GENERATION = 0x0FC
    CONFIG = 0x100


class Status(enum.IntFlag):
    """Bits of the device status (2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class Interrupt(enum.IntFlag):
    """Bits of InterruptStatus: why the line is up."""

    USED_BUFFER = 1
    CONFIGURATION = 2


# Feature bits of every device here (6).
INDIRECT_DESC, EVENT_IDX, VERSION_1 = 1 << 28, 1 << 29, 1 << 32
_TRANSPORT_FEATURES = INDIRECT_DESC | EVENT_IDX | VERSION_1

_MAGIC = int.from_bytes(b"virt", "little")
_VENDOR = int.from_bytes(b"CPFW", "little")
_ALL_ONES = 0xFFFF_FFFF

_CONSTANTS: dict[int, int] = {
    Register.MAGIC_VALUE: _MAGIC,
    Register.VERSION: 2,
    Register.VENDOR_ID: _VENDOR,
    Register.CONFIG_GENERATION: 0,  # no device here changes its configuration
}
_ADDRESSES: dict[int, tuple[str, int]] = {
    Register.QUEUE_DESC_LOW: ("descriptors", 0),
    Register.QUEUE_DESC_HIGH: ("descriptors", 32),
    Register.QUEUE_DRIVER_LOW: ("available", 0),
    Register.QUEUE_DRIVER_HIGH: ("available", 32),
    Register.QUEUE_DEVICE_LOW: ("used", 0),
    Register.QUEUE_DEVICE_HIGH: ("used", 32),
}
_DONE = Status.DRIVER_OK | Status.FEATURES_OK


class VirtioMmio:
    """The registers of one `device` at guest-physical `base`, and the thread that serves it.

    The line of `set_irq(level)` is up while InterruptStatus is not 0; it is called with a lock
    held, so that levels arrive in order, and must not call back. Any thread may read and write
    registers. `eventfd`, once there is a thread, is to be written when the guest writes to
    `notify_address`; a write that arrives here instead does the same.

    A driver that breaks a rule leaves the device broken: it does nothing more and shows
    NEEDS_RESET until it is reset; `broken` says why.
    """

    def __init__(
        self,
        device: VirtioDevice,
        base: int,
        memory: GuestMemoryAccess,
        set_irq: Callable[[bool], None],
    ) -> None:
        self.device = device
        self.addresses = range(base, base + REGISTER_BYTES)
        self.notify_address = base + Register.QUEUE_NOTIFY
        self._set_irq = set_irq
        self._irq_lock = threading.Lock()
        self._features = _TRANSPORT_FEATURES | device.features
        self.queues = [Virtqueue(memory, size) for size in device.queue_sizes]
        self.worker = Worker(f"virtio-{device.name}", self.work)
        self.interrupt_status = 0
        self.broken = ""
        self._forget()
        device.attach(self.queues, self._used_buffer, self.worker.kick)
        self.vmstate = _state(device)

    @property
    def eventfd(self) -> int:
        """The file descriptor that starts the work."""
        return self.worker.eventfd

    def start(self) -> None:
        """Start the device's thread."""
        self.worker.start()

    def pause(self) -> None:
        """Finish the request under way and begin no other until `resume`."""
        self.worker.hold()

    def resume(self) -> None:
        """Go on with what the guest asked for."""
        self.worker.release()
        self.worker.kick()

    def reset(self) -> None:
        """Back to power-on, after the request under way."""
        with self.worker.held():
            self._reset()

    def close(self) -> None:
        """End the thread and let go of the guest's memory and of the host's files."""
        self.worker.close()
        for queue in self.queues:
            queue.release()
        self.device.close()

    def problem(self) -> str:
        """What the driver did wrong, or what went wrong on the host; empty if all is well."""
        why = self.broken or self.device.problem()
        where = f"virtio-{self.device.name} at {self.addresses.start:#x}"
        return f"{where}: {why}" if why else ""

    # --- the device's side ----------------------------------------------------------------

    def work(self) -> bool:
        """Serve one request, on the device's thread; False when there is nothing to do."""
        if self.status & (_DONE | Status.NEEDS_RESET | Status.FAILED) != _DONE:
            return False
        try:
            return self.device.serve()
        except DriverError as fault:
            self._break(f"driver error: {fault}")
        except Exception as error:  # ours, and yet the guest's other devices can go on
            self._break(f"internal error: {type(error).__name__}: {error}")
        return False

    def _break(self, reason: str) -> None:
        self.broken = reason
        self.status |= Status.NEEDS_RESET
        if self.status & Status.DRIVER_OK:
            self._interrupt(Interrupt.CONFIGURATION)

    def _used_buffer(self) -> None:
        self._interrupt(Interrupt.USED_BUFFER)

    def _interrupt(self, reason: int) -> None:
        with self._irq_lock:
            was, self.interrupt_status = self.interrupt_status, self.interrupt_status | reason
            if not was:
                self._set_irq(True)

    def _acknowledge(self, reasons: int) -> None:
        with self._irq_lock:
            was, self.interrupt_status = self.interrupt_status, self.interrupt_status & ~reasons
            if was and not self.interrupt_status:
                self._set_irq(False)

    # --- the guest's side -----------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """The `size` bytes at `offset`, as a number. Registers have four; other reads give 0."""
        if offset >= Register.CONFIG:
            start = offset - Register.CONFIG
            return int.from_bytes(self.device.config[start : start + size], "little")
        if size != 4:
            return 0
        if offset == Register.INTERRUPT_STATUS:
            return self.interrupt_status
        if offset in _CONSTANTS:
            return _CONSTANTS[offset]
        queue = self._selected
        match offset:
            case Register.DEVICE_ID:
                return self.device.device_id
            case Register.DEVICE_FEATURES:
                return self._features >> 32 * self.device_features_select & _ALL_ONES
            case Register.QUEUE_NUM_MAX:
                return queue.size_max if queue else 0
            case Register.QUEUE_READY:
                return int(queue.ready) if queue else 0
            case Register.STATUS:
                return self.status
        # A shared memory region that is not there has length -1 (4.2.2).
        return _ALL_ONES if Register.SHM_LEN_LOW <= offset <= Register.SHM_BASE_HIGH else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Do what the guest asks. Writes to the configuration, or not of four bytes, do nothing."""
        if size != 4 or offset >= Register.CONFIG:
            return
        if offset == Register.INTERRUPT_ACK:
            self._acknowledge(value)
        elif offset == Register.QUEUE_NOTIFY:
            self.worker.kick()
        else:
            with self.worker.held():
                self._write(offset, value)

    def _write(self, offset: int, value: int) -> None:
        match offset:
            case Register.DEVICE_FEATURES_SEL:
                self.device_features_select = value
            case Register.DRIVER_FEATURES_SEL:
                self.driver_features_select = value
            case Register.DRIVER_FEATURES:
                self._accept_features(value)
            case Register.QUEUE_SEL:
                self.queue_select = value
            case Register.STATUS if value:
                self._set_status(value)
            case Register.STATUS:
                self._reset()
            case _ if queue := self._selected:
                self._write_queue(queue, offset, value)

    @property
    def _selected(self) -> Virtqueue | None:
        return self.queues[self.queue_select] if self.queue_select < len(self.queues) else None

    def _accept_features(self, value: int) -> None:
        if self.status & Status.FEATURES_OK or self.driver_features_select > 1:
            return
        shift = 32 * self.driver_features_select
        self.driver_features &= ~(_ALL_ONES << shift)
        self.driver_features |= value << shift

    def _set_status(self, value: int) -> None:
        new = value & ~self.status & ~Status.NEEDS_RESET
        if new & Status.FEATURES_OK:
            offered = not self.driver_features & ~self._features
            if not (offered and self.driver_features & VERSION_1):
                new &= ~Status.FEATURES_OK  # reading it back, the driver sees the refusal (3.1.1)
        self.status |= new
        self._use_features()
        if new & Status.DRIVER_OK:
            if not self.status & Status.FEATURES_OK:
                self._break("driver error: DRIVER_OK without FEATURES_OK (3.1.1)")
            self.worker.kick()

    def _use_features(self) -> None:
        agreed = self.driver_features if self.status & Status.FEATURES_OK else 0
        self.device.driver_features = agreed
        for queue in self.queues:
            queue.indirect = bool(agreed & INDIRECT_DESC)
            queue.event_index = bool(agreed & EVENT_IDX)

    def _write_queue(self, queue: Virtqueue, offset: int, value: int) -> None:
        if offset == Register.QUEUE_READY:
            self._set_ready(queue, bool(value & 1))
        elif queue.ready:
            return  # 4.2.2.2: not while it is in use
        elif offset == Register.QUEUE_NUM:
            queue.size = value
        elif offset in _ADDRESSES:
            name, shift = _ADDRESSES[offset]
            address = getattr(queue, name) & ~(_ALL_ONES << shift)
            setattr(queue, name, address | value << shift)

    def _set_ready(self, queue: Virtqueue, ready: bool) -> None:
        if not ready:
            queue.reset()
        elif not queue.ready:
            try:
                queue.enable()
            except DriverError as fault:
                self._break(f"driver error: {fault}")

    def _reset(self) -> None:
        self.broken = ""
        self._forget()
        for queue in self.queues:
            queue.reset()
        self._use_features()
        self.device.reset()
        self._acknowledge(_ALL_ONES)

    def _forget(self) -> None:
        self.status = 0
        self.driver_features = 0
        self.device_features_select = self.driver_features_select = self.queue_select = 0

    # --- saving and restoring -------------------------------------------------------------

    @property
    def config(self) -> bytes:
        """The device's configuration, which a saved state must agree with."""
        return self.device.config

    @config.setter
    def config(self, saved: bytes) -> None:
        if saved != self.device.config:
            raise StateError(
                f"virtio-{self.device.name} at {self.addresses.start:#x} was saved with another "
                f"configuration, {saved.hex()} instead of {self.device.config.hex()}: give the "
                "machine the same devices, and the drive the same size"
            )

    def after_load(self) -> None:
        """Map the loaded queues, and set the interrupt line as it was."""
        self._use_features()
        for queue in self.queues:
            if queue.ready:
                try:
                    queue.enable()
                except DriverError as fault:
                    raise StateError(f"state of virtio-{self.device.name}: {fault}") from None
            else:
                queue.release()
        with self._irq_lock:
            self._set_irq(bool(self.interrupt_status))


def _state(device: VirtioDevice) -> VMState:
    return VMState(
        f"virtio-{device.name}",
        1,
        blob("config"),
        u8("status"),
        text("broken"),
        u64("driver_features"),
        u32("device_features_select"),
        u32("driver_features_select"),
        u32("queue_select"),
        u8("interrupt_status"),
        nested_list("queues", Virtqueue.vmstate, len(device.queue_sizes)),
        *device.state,
        post_load="after_load",
    )
