"""The machine that a command line describes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpufw.errors import AcceleratorError, CpufwError, NotFoundError
from cpufw.system.devices import read_devices
from cpufw.system.errors import CommandLineError
from cpufw.system.memory import memory_backend, memory_objects, memory_size, numa_options
from cpufw.system.option_table import GLOBALS, MACHINE_PROPERTIES, OBJECTS
from cpufw.system.processor import cpu_request
from cpufw.system.smp import topology_of

if TYPE_CHECKING:
    from cpufw.core.accel import Accelerator
    from cpufw.core.arch import MachineType
    from cpufw.core.machine import Machine
    from cpufw.framework import Framework
    from cpufw.system.chardevs import Chardevs
    from cpufw.system.command_line import CommandLine
    from cpufw.system.keyval import Settings

ARCH = "x86_64"
DEFAULT_MACHINE = "pc"
_FIRMWARE_FOLDERS = ("/usr/share/seabios", "/usr/share/qemu")
_FIRMWARE = "bios-256k.bin"
_OTHER_ACCELERATORS = ("tcg", "qtest", "xen", "hvf", "whpx", "nvmm", "mshv")


def build_machine(framework: Framework, line: CommandLine, chardevs: Chardevs) -> Machine:
    """The machine, not started. Raises `CommandLineError` and what its parts raise."""
    cpu_globals = _read_globals(line)
    name = line.machine.take("type", DEFAULT_MACHINE)
    if name == "none":
        return _bare_machine(framework, line)
    kind = _kind(framework, name)
    levels = framework.architectures[ARCH].levels
    topology = topology_of(line.smp, kind, levels)
    text = line.cpu if line.cpu is not None else kind.default_cpu
    request = cpu_request(framework, ARCH, text, cpu_globals)
    options = _board_options(line, kind)
    accelerator = _open_accelerator(framework, line)
    devices = read_devices(line, chardevs)
    assert devices.disks is not None
    from cpufw.chardev import NullChardev

    options["serial"] = [each or NullChardev() for each in devices.ports]
    options["drives"] = devices.disks.drives
    options["rng"] = devices.random or None
    try:
        assert accelerator is not None
        machine = framework.machine(kind.name, request, topology, accelerator, **options)
    except BaseException:
        if accelerator is not None:
            accelerator.close()
        raise
    machine.owns_accelerator = True
    try:
        for given, properties in devices.cpus:
            _plug(machine, given, properties)
    except BaseException:
        machine.close()
        raise
    return machine


def _kind(framework: Framework, name: str) -> MachineType:
    try:
        kind = framework.machine_type(name)
    except NotFoundError:
        kind = None
    if kind is None or kind.arch != ARCH:
        raise CommandLineError(
            "unsupported machine type\nUse -machine help to list supported machines"
        )
    return kind


def _bare_machine(framework: Framework, line: CommandLine) -> Machine:
    """`-machine none`: no CPUs and no board, for questions about models and machines."""
    from cpufw.core.arch import MachineType
    from cpufw.core.board import BareBoard
    from cpufw.core.machine import Machine
    from cpufw.core.topology import Topology

    line.machine.ignore({"memory-backend": ("*", ""), **MACHINE_PROPERTIES})
    kind = MachineType("none", ARCH, "empty machine", "", 1, BareBoard, accel=None)
    levels = framework.architectures[ARCH].levels
    if line.smp is not None:
        asked = topology_of(line.smp, kind, levels)
        assert asked.max_cpus == 1
    if line.cpu is not None:
        cpu_request(framework, ARCH, line.cpu, [])
        raise CommandLineError("apic-id property was not initialized properly")
    memory_objects(line)
    _check_objects(line)
    accelerator = _open_accelerator(framework, line, needed=False)
    empty = Topology(tuple((level, int(level != levels[0])) for level in levels), 0)
    machine = Machine(
        kind, framework.cpu_class(f"qemu64-{framework.suffix(ARCH)}"), framework.registry, empty,
        accelerator,
    )  # fmt: skip
    machine.owns_accelerator = True
    return machine


def _open_accelerator(
    framework: Framework, line: CommandLine, needed: bool = True
) -> Accelerator | None:
    """The first accelerator of the command line that opens; None where none is `needed`."""
    known = {kind.name for kind in framework.accelerators if kind.arch == ARCH}
    reasons = []
    for name in line.accelerators or sorted(known):
        if name in known:
            try:
                return framework.open_accelerator(ARCH, name)
            except AcceleratorError as error:
                reasons.append(str(error))
        elif name in _OTHER_ACCELERATORS:
            reasons.append(f"cpufw has no accelerator {name}: use -accel kvm")
        else:
            raise CommandLineError(f"-accel {name}: invalid accelerator {name}")
    if needed:
        raise CommandLineError("; ".join(reasons))
    return None


def _read_globals(line: CommandLine) -> list[Settings]:
    """The global properties of CPUs; others are taken if they are true of cpufw's PC."""
    cpus = []
    for given in line.globals:
        driver, name = given.take("driver"), str(given.values.get("property", ""))
        if driver.endswith("-cpu"):
            cpus.append(given)
            continue
        allowed, why = GLOBALS.get(f"{driver}.{name}", ("", f"cpufw has no device {driver}"))
        value = given.take("value")
        if allowed != "*" and value not in allowed.split():
            raise given.fail(f"not supported: {why}")
    return cpus


def _check_objects(line: CommandLine) -> None:
    for given in line.objects.values():
        kind = given.need("qom-type")
        if kind not in OBJECTS:
            raise given.fail(f"Parameter 'qom-type' does not accept value '{kind}'")


def _board_options(line: CommandLine, kind: MachineType) -> dict[str, Any]:
    size = memory_size(line)
    objects = memory_objects(line)
    _check_objects(line)
    options: dict[str, Any] = {
        "memory": size,
        "memory_backend": memory_backend(line, objects, size),
        "numa": numa_options(line, objects),
        "kernel": line.kernel,
        "initrd": line.initrd,
        "append": line.append,
        "firmware": _firmware(line),
        "reboot": line.reboot,
        "on_crash": "reset",  # a triple fault resets a PC
        "on_panic": line.panic or ("report" if line.quits else "pause"),
        "kernel_irqchip": _irqchip(line),
    }
    line.machine.ignore(MACHINE_PROPERTIES)
    if line.machine.values:
        unknown = next(iter(line.machine.values))
        raise CommandLineError(f"Property '{kind.name}-machine.{unknown}' not found")
    for option, path in (("kernel", line.kernel), ("initrd", line.initrd)):
        if path is not None and not os.access(path, os.R_OK):
            why = "Permission denied" if Path(path).exists() else "No such file or directory"
            raise CommandLineError(f"could not open {option} file '{path}': {why}")
    return options


def _irqchip(line: CommandLine) -> str | None:
    given = line.machine.take("kernel-irqchip")
    if given == "off":
        raise CommandLineError("-accel kvm,kernel-irqchip=off: not supported, use split or on")
    if given not in ("", "on", "split"):
        raise CommandLineError(f"-machine kernel-irqchip={given}: expected on or split")
    return given or None


def _firmware(line: CommandLine) -> str | None:
    """The firmware: what is named, or SeaBIOS where there is no kernel to begin with."""
    folders = [Path(each) for each in (*line.firmware_folders, *_FIRMWARE_FOLDERS)]
    if line.firmware is not None:
        candidates = [Path(line.firmware), *(each / line.firmware for each in folders)]
    elif line.kernel is None:
        candidates = [each / _FIRMWARE for each in folders]
    else:
        return None
    for path in candidates:
        if path.is_file():
            return str(path)
    if line.firmware is not None:
        raise CommandLineError(f"could not load PC BIOS '{line.firmware}'")
    raise CommandLineError(
        f"there is nothing to boot: give -kernel, or install seabios ({_FIRMWARE}), or name "
        "firmware with -bios"
    )


def _plug(machine: Machine, given: Settings, properties: Mapping[str, Any]) -> None:
    from cpufw.monitor.plugging import words

    try:
        with words(machine):
            machine.device_add(**properties)
    except CpufwError as error:
        raise given.fail(str(error)) from None
