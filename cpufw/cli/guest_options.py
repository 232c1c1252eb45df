"""The options that say which guest runs on which machine."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from math import inf
from typing import Any

from cpufw.cli.completion import completes_files, completes_models
from cpufw.errors import UsageError


def add_guest_options(parser: ArgumentParser) -> None:
    """Add what is run and how it ends."""
    guest = parser.add_argument_group("guest")
    completes_files(
        guest.add_argument("image", nargs="?", metavar="IMAGE", help="a flat binary or an ELF file")
    )
    completes_files(guest.add_argument("--kernel", metavar="IMAGE", help="the same as IMAGE"))
    guest.add_argument(
        "--entry-mode",
        choices=("real", "protected", "long"),
        help="the mode to enter it in (default: real for flat, by its class for ELF)",
    )
    guest.add_argument(
        "--load-address",
        type=_number,
        metavar="ADDR",
        help="where a flat image goes (default: 0x7c00 in real mode, else 0x100000)",
    )
    guest.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="stop it after that long and show where each CPU was (default: never)",
    )
    completes_files(
        guest.add_argument(
            "--initrd",
            metavar="FILE[ ARGUMENTS][,FILE…]",
            help="the initial RAM disk of Linux, or the modules of a multiboot kernel",
        )
    )
    guest.add_argument("--append", default="", metavar="TEXT", help="the kernel's command line")
    guest.add_argument(
        "--protocol",
        metavar="NAME",
        help="how to boot it, where the file does not tell: see docs/boot.md",
    )
    completes_files(
        guest.add_argument(
            "--firmware", metavar="FILE", help="firmware that ends at 4 GiB, such as SeaBIOS"
        )
    )
    guest.add_argument(
        "--fw-cfg",
        action="append",
        default=[],
        metavar="NAME,file=FILE|string=TEXT",
        help="a file for firmware or the guest, named opt/…: see docs/devices.md; may be repeated",
    )
    guest.add_argument(
        "--no-reboot", action="store_true", help="end the run when the guest resets the machine"
    )
    guest.add_argument(
        "--on-crash",
        choices=("report", "reset", "pause"),
        help="what a guest that triple-faults comes to (default: report, and exit status 3)",
    )
    guest.add_argument(
        "--watchdog",
        type=_seconds,
        metavar="SECONDS",
        help="end the run when the thread of a vCPU cannot be stopped for that long",
    )


def add_machine_options(parser: ArgumentParser) -> None:
    """Add the machine, its CPUs and its memory."""
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--machine", "-M", default="pc", metavar="TYPE", help="the machine type (default: pc)"
    )
    completes_models(
        machine.add_argument(
            "--cpu",
            metavar="MODEL[,+FEATURE][,-FEATURE][,PROPERTY=VALUE]",
            help="the CPU model, see cpufw list-models (default: the machine type's, qemu64 on pc)",
        )
    )
    machine.add_argument(
        "--smp",
        default="1",
        metavar="N[,maxcpus=M][,sockets=…][,dies=…][,modules=…][,cores=…][,threads=…]",
        help="CPUs at boot, and the slots there are (default: 1)",
    )
    machine.add_argument(
        "--memory",
        "-m",
        default="128M",
        metavar="SIZE",
        help="RAM: 64M, 2G; a number alone counts MiB (default: 128M)",
    )
    machine.add_argument(
        "--accel",
        default="kvm",
        metavar="NAME[:NAME]",
        help="what runs the guest, the first of these that opens (default: kvm)",
    )
    machine.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="TYPE,id=ID,socket-id=N,…",
        help="plug a CPU of the machine's type before the guest starts; may be repeated",
    )
    machine.add_argument(
        "--enforce", action="store_true", help="refuse to run if a feature is not granted"
    )

    machine.add_argument(
        "--memory-backend",
        metavar="KIND[,share=on][,hugetlb=on][,prealloc=on]",
        help="where the RAM comes from: anonymous or memfd (default: anonymous)",
    )
    machine.add_argument(
        "--drive",
        action="append",
        default=[],
        metavar="file=PATH[,readonly=on][,id=NAME]",
        help="a virtio disk: a raw image or a block device of the host; may be repeated",
    )
    machine.add_argument("--rng", action="store_true", help="a virtio source of random numbers")
    machine.add_argument(
        "--numa",
        action="append",
        default=[],
        metavar="node,…|cpu,…|dist,…",
        help="a NUMA node, which CPUs are in it, how far it is: see docs/acpi.md; may be repeated",
    )
    machine.add_argument(
        "--kernel-irqchip",
        choices=("on", "split"),
        help="all interrupt controllers in the kernel, or only the local APICs (split: no PIC, no "
        "PIT; default: on, and split where an APIC id is above 254)",
    )
    machine.add_argument(
        "--assist",
        choices=("auto", "on", "off"),
        help="finish instructions that KVM hands back; auto: on hosts without VMX and SVM",
    )
    machine.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="VCPU=CPUS",
        help="run a vCPU on these CPUs of the host only: 0=0-1,4; may be repeated",
    )


def board_options(options: Namespace) -> dict[str, Any]:
    """What of the options is for the machine's board; those that were not given are left out.

    Raises `UsageError`.
    """
    image = options.kernel or options.image
    if image is None and options.firmware is None:
        raise UsageError("a guest image is missing: cpufw run IMAGE")
    if options.kernel and options.image:
        raise UsageError(f"two guest images are given, {options.image} and {options.kernel}")
    if options.machine == "none":
        raise UsageError("--machine none has nothing to run a guest on, expected for example pc")
    given = {
        "memory": options.memory,
        "kernel": image,
        "initrd": options.initrd,
        "append": options.append,
        "protocol": options.protocol,
        "entry_mode": options.entry_mode,
        "load_address": options.load_address,
        "firmware": options.firmware,
        "fw_cfg": options.fw_cfg,
        "drives": options.drive,
        "rng": options.rng or None,
        "numa": options.numa,
        "kernel_irqchip": options.kernel_irqchip,
        "reboot": None if not options.no_reboot else False,
        "on_crash": options.on_crash,
        **host_options(options),
    }
    return {name: value for name, value in given.items() if value not in (None, "", [], {})}


def host_options(options: Namespace) -> dict[str, Any]:
    """What of those the guest cannot notice. Raises `UsageError`."""
    given = {
        "memory_backend": options.memory_backend,
        "pin": dict(parse_pin(text) for text in options.pin),
        "assist": options.assist,
        "watchdog": options.watchdog,
    }
    return {name: value for name, value in given.items() if value not in (None, {})}


def parse_pin(text: str) -> tuple[int, frozenset[int]]:
    """`0=0-1,4`: a vCPU and CPUs of the host. Raises `UsageError`."""
    vcpu, _, listed = text.partition("=")
    try:
        host_cpus: set[int] = set()
        for part in listed.split(","):
            first, dash, last = part.partition("-")
            host_cpus |= set(range(int(first), int(last if dash else first) + 1))
        return int(vcpu), frozenset(host_cpus)
    except ValueError:
        raise UsageError(f"--pin: '{text}' is not VCPU=CPUS, for example 0=0-1,4") from None


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0:
        raise ArgumentTypeError(f"'{text}' is not an address like 0x7c00")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < inf:
        raise ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return value
