"""Every option of QEMU's command line: what cpufw does with it, and if nothing, why."""

from __future__ import annotations

SERVED = {
    "M": True, "S": False, "accel": True, "action": True, "add-fd": True, "append": True,
    "bios": True, "blockdev": True, "chardev": True, "cpu": True, "daemonize": False,
    "device": True, "drive": True, "enable-kvm": False, "global": True, "help": False,
    "h": False, "initrd": True, "kernel": True, "m": True, "machine": True, "mon": True,
    "monitor": True, "name": True, "no-reboot": False, "no-shutdown": False, "nographic": False,
    "numa": True, "object": True, "pidfile": True, "qmp": True, "qmp-pretty": True, "rtc": True,
    "serial": True, "smp": True, "uuid": True, "version": False, "watchdog-action": True,
    "display": True, "mem-prealloc": False, "L": True, "boot": True,
}  # fmt: skip
"""Options that cpufw acts on, and whether a value follows."""

UNUSED = {
    "audiodev": (True, "only driver none is taken, and makes no sound"),
    "compat": (True, "no command or option of cpufw is deprecated or unstable in QEMU's sense"),
    "k": (True, "there is no keyboard that a layout could be for"),
    "msg": (True, "messages go to standard error one by one; a time stamp is libvirt's log's"),
    "no-hpet": (False, "cpufw's PC has no HPET"),
    "no-fd-bootchk": (False, "there are no floppy disks"),
    "no-user-config": (False, "no configuration file is read"),
    "nodefaults": (False, "cpufw has no default devices that could be left out"),
    "only-migratable": (False, "no device of cpufw's PC stands in the way of migration"),
    "overcommit": (True, "guest memory is never locked, and idle CPUs always sleep"),
    "sandbox": (True, "cpufw starts no other program and opens no file once the guest runs"),
    "vga": (True, "only none is taken: there is no display"),
    "parallel": (True, "only none is taken: there is no parallel port"),
    "net": (True, "only none is taken: there is no network card"),
    "nic": (True, "only none is taken: there is no network card"),
    "async-teardown": (False, "guest memory is given back by the kernel in any case"),
    "run-with": (True, "only async-teardown is taken, which changes nothing here"),
}
"""Options that are taken without effect: whether a value follows, and why nothing is lost."""

UNUSED_VALUES = {
    "vga": ("none",),
    "parallel": ("none", "null"),
    "net": ("none",),
    "nic": ("none",),
}
"""The only values that some of them may have."""

_DISKS = "attach a raw image with -drive file=PATH,format=raw,if=virtio"
_NETWORK = "cpufw has no network devices: leave it out"
_DISPLAY = "cpufw has no display: use -display none and a serial port"
_TRACE = "cpufw has no such tracing: cpufw run shows what a guest that died was doing"

REFUSED = {
    "acpitable": (True, "the ACPI tables are made from the machine: they cannot be replaced"),
    "audio": (True, "cpufw has no sound devices: leave it out"),
    "audio-help": (False, "cpufw has no sound devices"),
    "cdrom": (True, f"there is no CD drive: {_DISKS}"),
    "chroot": (True, "start cpufw in the root that it is to have"),
    "d": (True, _TRACE), "D": (True, _TRACE), "dfilter": (True, _TRACE),
    "trace": (True, _TRACE), "plugin": (True, _TRACE),
    "debugcon": (True, "name a serial port instead: -serial"),
    "dtb": (True, "PCs have no device tree: leave it out"),
    "dump-vmstate": (True, "cpufw's state has its own form: see cpufw snapshot"),
    "echr": (True, "the escape key is Ctrl-A: leave it out"),
    "enable-sync-profile": (False, _TRACE),
    "fda": (True, f"there is no floppy drive: {_DISKS}"),
    "fdb": (True, f"there is no floppy drive: {_DISKS}"),
    "fsdev": (True, "cpufw shares no folders: give the guest a disk with -drive"),
    "full-screen": (False, _DISPLAY),
    "fw_cfg": (True, "use cpufw run --fw-cfg for files of one's own"),
    "gdb": (True, "cpufw has no gdb stub"), "s": (False, "cpufw has no gdb stub"),
    "hda": (True, f"there is no IDE: {_DISKS}"), "hdb": (True, f"there is no IDE: {_DISKS}"),
    "hdc": (True, f"there is no IDE: {_DISKS}"), "hdd": (True, f"there is no IDE: {_DISKS}"),
    "icount": (True, "KVM runs the guest in real time: leave it out"),
    "incoming": (True, "use cpufw run --incoming: cpufw migrates between cpufw's only"),
    "iscsi": (True, _DISKS),
    "loadvm": (True, "use cpufw run --load"),
    "mem-path": (True, "use -object memory-backend-memfd,… and -machine memory-backend=ID"),
    "mtdblock": (True, _DISKS),
    "netdev": (True, _NETWORK),
    "no-acpi": (False, "CPU hot-plug needs ACPI: leave it out"),
    "option-rom": (True, "firmware finds no cards here: leave it out"),
    "pflash": (True, "there is no flash memory: give the firmware with -bios"),
    "portrait": (False, _DISPLAY), "rotate": (True, _DISPLAY),
    "preconfig": (False, "describe the machine on the command line, and begin with -S"),
    "readconfig": (True, "write the options on the command line"),
    "runas": (True, "start cpufw as the user that it is to be"),
    "sd": (True, _DISKS),
    "seed": (True, "cpufw takes random numbers from the kernel: leave it out"),
    "semihosting": (False, "PCs have no semihosting"),
    "set": (True, "write the property where the object is defined"),
    "singlestep": (False, "KVM runs the guest: leave it out"),
    "smbios": (True, "cpufw's PC has no SMBIOS tables: leave it out"),
    "snapshot": (False, "disks are written in place: copy the image, or use readonly=on"),
    "spice": (True, _DISPLAY),
    "tpmdev": (True, "cpufw has no TPM: leave it out"),
    "usb": (False, "cpufw has no USB: leave it out"),
    "usbdevice": (True, "cpufw has no USB: leave it out"),
    "virtfs": (True, "cpufw shares no folders: give the guest a disk with -drive"),
    "vnc": (True, _DISPLAY), "win2k-hack": (False, "there is no IDE"),
    "xen-attach": (False, "cpufw runs on KVM"), "xen-domid": (True, "cpufw runs on KVM"),
    "xen-domid-restrict": (False, "cpufw runs on KVM"),
}  # fmt: skip
"""Options of QEMU that cpufw cannot serve: whether a value follows, and what to do instead."""

MACHINE_PROPERTIES = {
    "acpi": ("on auto", "CPU hot-plug needs ACPI"),
    "dump-guest-core": ("*", "core dumps of cpufw never hold guest memory"),
    "fd-bootchk": ("*", "there are no floppy disks"),
    "graphics": ("*", "there is no display"),
    "hmat": ("off", "cpufw's tables have no HMAT"),
    "hpet": ("off", "cpufw's PC has no HPET"),
    "mem-merge": (
        "*",
        "the kernel merges equal pages only where a process asks, and cpufw does not",
    ),
    "nvdimm": ("off", "cpufw has no persistent memory"),
    "pcspk-audiodev": ("*", "there is no speaker"),
    "sata": ("*", "there is no SATA"),
    "smbus": ("*", "there is no SMBus"),
    "smm": ("off auto", "cpufw's PC has no system management mode"),
    "suppress-vmdesc": ("*", "cpufw's saved machines describe themselves otherwise"),
    "usb": ("off", "cpufw has no USB"),
    "vmport": ("off auto", "cpufw has no VMware port"),
    "aux-ram-share": ("*", "cpufw moves no file descriptors to another process"),
}
"""Properties of the machine with the values that are true of cpufw's PC, and why."""

GLOBALS = {
    "ICH9-LPC.disable_s3": ("*", "there is no suspend to RAM"),
    "ICH9-LPC.disable_s4": ("*", "there is no suspend to disk"),
    "ICH9-LPC.noreboot": ("*", "there is no watchdog timer, so a guest finds none"),
    "PIIX4_PM.disable_s3": ("*", "there is no suspend to RAM"),
    "PIIX4_PM.disable_s4": ("*", "there is no suspend to disk"),
    "kvm-pit.lost_tick_policy": ("delay discard", "KVM's PIT knows delay and discard"),
}
"""Global properties that are taken without effect, their values, and why."""

OBJECTS = {
    "secret": "nothing here is encrypted, so no secret is looked at",
    "tls-creds-x509": "no connection of cpufw uses TLS; one that asks for it is refused",
    "rng-random": "the virtio source of random numbers always reads the kernel's",
    "rng-builtin": "the virtio source of random numbers always reads the kernel's",
    "thread-context": "guest memory is touched by the guest alone",
}
"""Objects that may be made although nothing uses them, and why."""

BUILT_IN_DEVICES = {
    "isa-debug-exit": "the debug exit port 0xf4 is always there",
    "pvpanic": "the panic port 0x505 is always there",
}
"""Devices that cpufw's PC has in any case, and where."""

DEVICE_HINTS = {
    "virtio-blk-pci": "cpufw has virtio disks without PCI: use -drive …,if=virtio",
    "virtio-rng-pci": "cpufw has virtio without PCI: use -device virtio-rng-device",
    "virtio-serial-pci": "cpufw has virtio without PCI: leave it out and use a serial port",
    "virtio-balloon-pci": "cpufw has no balloon: leave it out, in libvirt model='none'",
}
"""What to do instead of some devices."""
