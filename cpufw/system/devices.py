"""`-device`: CPUs, serial ports, virtio disks, and those that the PC has in any case."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cpufw.system.disks import Disks
from cpufw.system.option_table import BUILT_IN_DEVICES, DEVICE_HINTS

if TYPE_CHECKING:
    from cpufw.chardev import Chardev
    from cpufw.system.chardevs import Chardevs
    from cpufw.system.command_line import CommandLine
    from cpufw.system.keyval import Settings

SERIAL_PORTS = 4


@dataclass
class Devices:
    """What `-device` and `-serial` ask for: `ports` are COM1 and on, None where nothing is."""

    ports: list[Chardev | None] = field(default_factory=list)
    cpus: list[tuple[Settings, dict[str, Any]]] = field(default_factory=list)
    disks: Disks | None = None
    random: bool = False


def read_devices(line: CommandLine, chardevs: Chardevs) -> Devices:
    """Open what the devices lead to. Raises `CommandLineError`."""
    devices = Devices(disks=Disks(line))
    places = line.serials
    if not places and line.console and not line.no_defaults:
        places = ["stdio"]
    for index, text in enumerate(places):
        _put(devices, index, chardevs.place("serial", text, f"serial{index}"))
    for given in line.devices:
        _add(devices, given, chardevs)
    assert devices.disks is not None
    devices.disks.done()
    return devices


def _add(devices: Devices, given: Settings, chardevs: Chardevs) -> None:
    driver = given.need("driver")
    assert devices.disks is not None
    if driver.endswith("-x86_64-cpu"):
        devices.cpus.append((given, {"driver": driver, **given.values}))
    elif driver == "isa-serial":
        index = given.number("index", len(devices.ports))
        if not 0 <= index < SERIAL_PORTS:
            raise given.fail(f"there are {SERIAL_PORTS} serial ports, index 0 to 3")
        chardev = chardevs.chardev(given.need("chardev"), given)
        given.ignore({"id": ("*", "a name that nobody asks for")})
        given.done()
        if index < len(devices.ports) and devices.ports[index] is not None:
            raise given.fail(f"serial port {index} is taken")
        _put(devices, index, chardev)
    elif driver == "virtio-blk-device":
        devices.disks.attach(given)
    elif driver == "virtio-rng-device":
        given.ignore({"id": ("*", ""), "rng": ("*", "numbers come from the host's kernel")})
        given.done()
        devices.random = True
    elif driver in BUILT_IN_DEVICES:
        given.ignore(
            dict.fromkeys(("id", "iobase", "iosize", "ioport", "irq"), ("*", "where it is anyway"))
        )
        given.done()
    else:
        hint = DEVICE_HINTS.get(driver, "cpufw has no such device: leave it out")
        raise given.fail(f"'{driver}' is not a valid device model name: {hint}")


def _put(devices: Devices, index: int, chardev: Chardev | None) -> None:
    devices.ports += [None] * (index + 1 - len(devices.ports))
    devices.ports[index] = chardev
