"""Where virtio devices are on a PC, and how they reach its memory and interrupts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from cpufw.chardev import Chardev
from cpufw.errors import UsageError
from cpufw.kvm import GuestMemory
from cpufw.virtio import (
    REGISTER_BYTES,
    BlockDevice,
    ConsoleDevice,
    Drive,
    EntropyDevice,
    RawImage,
    VirtioDevice,
    VirtioMmio,
)
from cpufw_x86.kvm import X86VM

# As on QEMU's microvm: registers 512 bytes apart, interrupts from the I/O APIC's first pin that
# is not an ISA line, level-triggered and active high.
VIRTIO_ADDRESS, VIRTIO_GSI, VIRTIO_MOST = 0xFEB0_0000, 16, 8


class RamAccess:
    """Guest RAM for devices, from its blocks (guest-physical address, memory)."""

    def __init__(self, blocks: Iterable[tuple[int, GuestMemory]]) -> None:
        self._blocks = [
            (start, start + memory.size, memory, memory.memoryview()) for start, memory in blocks
        ]

    def view(self, address: int, size: int) -> memoryview:
        """See GuestMemoryAccess."""
        for start, end, _, view in self._blocks:
            if start <= address and address + size <= end:
                return view[address - start : address - start + size]
        raise LookupError(f"{address:#x}")

    def wrote(self, address: int, size: int) -> None:
        """See GuestMemoryAccess."""
        for start, end, memory, _ in self._blocks:
            if start <= address < end:
                memory.note_written(address - start, size)

    def close(self) -> None:
        """Let go of the memory."""
        self._blocks.clear()


def open_virtio(
    drives: Sequence[Drive],
    console: Chardev | None,
    rng: bool,
    on_error: Callable[[Exception], None],
) -> list[VirtioDevice]:
    """The devices that a user asked for, disks first, so that /dev/vda is the first of them.

    A drive without an id is called drive0, drive1 and so on. `on_error` is for the console; see
    there. Raises `UsageError` for too many or a repeated id, `ImageError` for an image that
    cannot be used.
    """
    count = len(drives) + (console is not None) + rng
    if count > VIRTIO_MOST:
        raise UsageError(f"{count} virtio devices, this machine has room for {VIRTIO_MOST}")
    names = [drive.id or f"drive{number}" for number, drive in enumerate(drives)]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two drives are called {name}: give each an id of its own")
    devices: list[VirtioDevice] = []
    with ExitStack() as undo:
        for drive, name in zip(drives, names, strict=True):
            image = RawImage(drive.file, read_only=drive.read_only)
            undo.callback(image.close)
            devices.append(BlockDevice(image, name))
        undo.pop_all()
    if console is not None:
        devices.append(ConsoleDevice(console, on_error))
    if rng:
        devices.append(EntropyDevice())
    return devices


class PcVirtio:
    """`devices` on the board of `vm`, each with a thread; `set_irq(gsi, level)` is the board's.

    Their registers, in `transports`, belong on the MMIO bus.
    """

    def __init__(
        self,
        vm: X86VM,
        blocks: Iterable[tuple[int, GuestMemory]],
        devices: Sequence[VirtioDevice],
        set_irq: Callable[[int, bool], None],
    ) -> None:
        self._ram = RamAccess(blocks)
        self.transports: list[VirtioMmio] = []
        for number, device in enumerate(devices):
            address = VIRTIO_ADDRESS + number * REGISTER_BYTES
            line = _line(set_irq, VIRTIO_GSI + number)
            self.transports.append(VirtioMmio(device, address, self._ram, line))
        try:
            for transport in self.transports:
                # The guest goes on at once when it notifies; KVM writes the eventfd by itself.
                vm.ioeventfd(transport.eventfd, transport.notify_address, 4)
        except BaseException:
            self.close()
            raise
        for transport in self.transports:
            transport.start()

    @property
    def acpi(self) -> list[tuple[int, int, int]]:
        """Address, size and global system interrupt of each, for the ACPI tables."""
        return [
            (each.addresses.start, len(each.addresses), VIRTIO_GSI + number)
            for number, each in enumerate(self.transports)
        ]

    def problems(self) -> list[str]:
        """A sentence for each device that its driver broke or whose host had errors."""
        return [found for found in (each.problem() for each in self.transports) if found]

    def pause(self) -> None:
        """Finish every request under way; nothing of the guest changes until `resume`."""
        for transport in self.transports:
            transport.pause()

    def resume(self) -> None:
        """Go on."""
        for transport in self.transports:
            transport.resume()

    def reset(self) -> None:
        """All devices to their power-on state, after the requests under way."""
        for transport in self.transports:
            transport.reset()

    def close(self) -> None:
        """End the threads, close the images; before the VM is closed, which interrupts go to."""
        for transport in self.transports:
            transport.close()
        self._ram.close()


def _line(set_irq: Callable[[int, bool], None], gsi: int) -> Callable[[bool], None]:
    return lambda level: set_irq(gsi, level)
