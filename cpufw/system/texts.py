"""What `-help`, `-version`, `-cpu help` and their like print."""

from __future__ import annotations

from cpufw.errors import UsageError
from cpufw.version import __version__

_HELP = """\
usage: {program} [options]
QEMU's command line, as libvirt writes it, for cpufw's PC on KVM (docs/libvirt.md).

{served}
taken without effect: {unused}
"""


def text(wanted: str, program: str) -> str:
    """The text of `help`, `version`, `cpu`, `machine`, `accel` or `device`."""
    match wanted:
        case "help":
            return _help(program)
        case "version":
            from cpufw.monitor.version import VERSION

            known = ".".join(map(str, VERSION["qemu"].values()))  # type: ignore[attr-defined]
            return f"QEMU emulator version {known} (cpufw {__version__})\n"
        case "accel":
            return "Accelerators supported in cpufw:\nkvm\n"
        case "device":
            return _devices()
        case "machine":
            return _machines()
    return _cpus()


def _help(program: str) -> str:
    from cpufw.system.option_table import SERVED, UNUSED

    names = [f"-{name}{' …' if has_value else ''}" for name, has_value in sorted(SERVED.items())]
    unused = ", ".join(f"-{name}" for name in sorted(UNUSED))
    return _HELP.format(program=program, served="\n".join(names), unused=unused)


def _devices() -> str:
    from cpufw.system.option_table import BUILT_IN_DEVICES

    own = {
        "isa-serial": "a serial port",
        "virtio-blk-device": "a disk: drive=ID",
        "virtio-rng-device": "random numbers",
        "MODEL-x86_64-cpu": "a CPU of the machine's type",
        **BUILT_IN_DEVICES,
    }
    return "".join(f'name "{name}", desc "{what}"\n' for name, what in own.items())


def _machines() -> str:
    from cpufw.framework import Framework
    from cpufw.system.guest import ARCH

    framework = Framework()
    lines = ["Supported machines are:"]
    for kind in framework.machine_types_of(ARCH):
        try:
            framework.with_board(kind)
        except UsageError:  # a description of CPUs and nothing else
            continue
        alias = f" (alias of {kind.name})" if kind.alias else ""
        if kind.alias:
            lines.append(f"{kind.alias:20} {kind.description}{alias}")
        lines.append(f"{kind.name:20} {kind.description}")
    return "\n".join(lines) + "\nnone                 empty machine\n"


def _cpus() -> str:
    from cpufw.framework import Framework
    from cpufw.system.guest import ARCH

    catalogue = Framework().catalogue(ARCH)
    lines = ["Available CPUs:"]
    lines += [f"  {model.name:20}  {model.description}".rstrip() for model in catalogue]
    features = " ".join(sorted({feature.name for feature in next(iter(catalogue)).table}))
    return "\n".join(lines) + f"\n\nRecognized CPUID flags:\n  {features}\n"
