"""What a PC shows of itself in the object tree, apart from its CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cpufw.core.disk import Disk
from cpufw.core.qom import DEVICE_PROPERTIES, Object, Property
from cpufw.kvm import MemoryBackend
from cpufw.virtio import BlockDevice

if TYPE_CHECKING:
    from cpufw.chardev import Chardev
    from cpufw_x86.pc import PcBoard

RAM = "pc.ram"

_CHARDEVS = {"none": "null", "unix": "socket"}
_VIRTIO = {2: "virtio-blk-device", 3: "virtio-serial-device", 4: "virtio-rng-device"}


class Described(Object):
    """An object that shows `properties` as they were when it was made."""

    def __init__(self, type_name: str, **properties: Any) -> None:
        super().__init__()
        self.type_name = type_name
        for name, value in properties.items():
            kind = {bool: "bool", int: "int"}.get(type(value), "string")
            self.add_property(Property(name.replace("_", "-"), kind, "", value, writable=False))


class BuiltIn(Described):
    """A device of the board: always there."""

    realized, hotplugged, hotpluggable = True, False, False

    def __init__(self, type_name: str, **properties: Any) -> None:
        super().__init__(type_name, **properties)
        for spec in DEVICE_PROPERTIES:
            self.add_property(spec)


def show(board: PcBoard) -> None:
    """Put the devices, memory and chardevs of `board` into its machine's tree."""
    machine, options = board.machine, board.options
    backend = MemoryBackend.parse(options.memory_backend)
    ram = Described(
        f"memory-backend-{'memfd' if backend.memfd else 'ram'}",
        size=options.memory,
        share=backend.share,
        prealloc=backend.prealloc,
    )
    machine.objects.add_child(RAM, ram)
    machine.add_link("memory-backend", "memory-backend", ram)
    for name, value in (
        ("kernel", options.kernel),
        ("initrd", options.initrd),
        ("append", options.append),
        ("firmware", options.firmware),
    ):
        text = "" if value is None else str(value)
        machine.add_property(Property(name, "string", "", text, writable=False))
    for device in _devices(board):
        machine.devices.add_built_in(device)
    for index, port in enumerate(board.chipset.serial.ports):
        machine.chardevs.add_child(f"serial{index}", Described(_chardev_type(port.chardev)))


def _devices(board: PcBoard) -> Iterator[BuiltIn]:
    chipset = board.chipset
    if chipset.irqchip.has_pic:
        yield BuiltIn("kvm-i8259")
        yield BuiltIn("kvm-pit")
    yield BuiltIn("kvm-ioapic" if chipset.irqchip.ioapic is None else "ioapic")
    for type_name in ("mc146818rtc", "i8042", "fw_cfg_io", "isa-debug-exit", "pvpanic"):
        yield BuiltIn(type_name)
    for index, port in enumerate(chipset.serial.ports):
        place = {"iobase": port.place.port, "irq": port.place.irq}
        yield BuiltIn("isa-serial", index=index, chardev=f"serial{index}", **place)
    for transport in chipset.virtio.transports:
        yield BuiltIn("virtio-mmio", address=transport.addresses.start)
        yield BuiltIn(_VIRTIO[transport.device.device_id])


def disks(board: PcBoard) -> list[Disk]:
    """The virtio disks of `board`, whose devices are in its machine's tree."""
    built_in = board.machine.devices.built_in()
    objects = [each for each in built_in if each.type_name == _VIRTIO[BlockDevice.device_id]]
    devices = [each.device for each in board.chipset.virtio.transports]
    blocks = [each for each in devices if isinstance(each, BlockDevice)]
    return [
        Disk(
            name=block.serial.decode("ascii"),
            path=shown.path,
            file=block.image.path,
            size=block.image.size,
            allocated=block.image.allocated,
            read_only=block.image.read_only,
            host_device=block.image.is_device,
            counts=block.counts,
        )
        for block, shown in zip(blocks, objects, strict=True)
    ]


def _chardev_type(chardev: Chardev) -> str:
    kind = chardev.name.partition(":")[0]
    return f"chardev-{_CHARDEVS.get(kind, kind)}"
