"""`-drive` and `-blockdev`: raw images as virtio disks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpufw.virtio import Drive

if TYPE_CHECKING:
    from cpufw.system.command_line import CommandLine
    from cpufw.system.keyval import Settings

_TUNING = {
    "aio": ("*", "each disk has a thread"),
    "auto-read-only": ("*", "an image that cannot be written is an error"),
    "cache": ("*", "writes go to the host's page cache, a guest's flush to the disk"),
    "cache.direct": ("*", "writes go to the host's page cache"),
    "cache.no-flush": ("off", "a guest's flush reaches the disk"),
    "cache.writeback": ("*", "a guest's flush reaches the disk"),
    "detect-zeroes": ("off", "zeros are written as they are"),
    "discard": ("*", "the guest is not offered discard"),
    "index": ("*", "disks are in the order of the command line"),
    "locking": ("auto on", "images are always locked"),
    "media": ("disk", "there are no CD drives"),
    "rerror": ("auto report", "errors are reported to the guest"),
    "werror": ("auto report enospc", "errors are reported to the guest"),
    "throttling.": ("", "there is no throttling"),
}
_ON_BUS = {
    "bus": ("*", "virtio disks are on no bus"),
    "bootindex": ("*", "there is one thing to boot: the kernel or the firmware"),
    "write-cache": ("*", "a guest's flush reaches the disk"),
}


class Disks:
    """The disks of a command line, in its order. Raises `CommandLineError`."""

    def __init__(self, line: CommandLine) -> None:
        self.drives: list[Drive] = []
        self._unattached: dict[str, Drive] = {}
        self._blocks = line.block_devices
        for given in line.drives:
            where = given.take("if", "virtio")
            drive = self._drive(given)
            if where == "virtio":
                self.drives.append(drive)
            elif where == "none" and drive.id:
                self._unattached[drive.id] = drive
            else:
                raise given.fail(f"'if={where}' is not supported: use if=virtio")

    def attach(self, device: Settings) -> None:
        """`-device virtio-blk-device,drive=…`."""
        named = device.need("drive")
        name, serial = device.take("id"), device.take("serial")
        device.ignore(_ON_BUS)
        device.done()
        drive = self._unattached.pop(named, None)
        if drive is None:
            if named not in self._blocks:
                raise device.fail(f"Property 'virtio-blk-device.drive' can't find value '{named}'")
            drive = self._of_node(named, device)
        self.drives.append(Drive(drive.file, drive.read_only, serial or name or drive.id))

    def done(self) -> None:
        """Refuse what no device uses, rather than lose it."""
        for drive in self._unattached.values():
            from cpufw.system.errors import refused

            raise refused("drive", str(drive), "no device uses it: add if=virtio")

    def _drive(self, given: Settings) -> Drive:
        if given.take("format", "raw") != "raw":
            raise given.fail("only raw images are supported: qemu-img convert -O raw makes one")
        read_only = given.switch("readonly", given.switch("read-only"))
        drive = Drive(given.need("file"), read_only, given.take("id"))
        given.ignore(_TUNING)
        given.done()
        return drive

    def _of_node(self, name: str, device: Settings) -> Drive:
        """The image behind the block node `name`."""
        given = self._blocks[name]
        driver = given.take("driver")
        read_only = given.switch("read-only")
        if driver == "raw":
            below = given.take("file")
            if below not in self._blocks:
                raise given.fail(f"Cannot find device='' nor node-name='{below}'")
            given.ignore(_TUNING)
            given.done()
            found = self._of_node(below, device)
            return Drive(found.file, found.read_only or read_only, found.id)
        if driver not in ("file", "host_device"):
            raise given.fail(f"'{driver}' is not supported: use driver=file with a raw image")
        drive = Drive(given.need("filename"), read_only)
        given.ignore(_TUNING)
        given.done()
        return drive
