"""QEMU's command line taken apart: what each option says, before anything is opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from cpufw.system import option_table as table
from cpufw.system.errors import CommandLineError, refused
from cpufw.system.keyval import Settings, parse_settings

_REBOOT = ("reset", "shutdown")
_SHUTDOWN = ("poweroff", "pause")
_PANIC = {"shutdown": "", "exit-failure": "report", "pause": "pause", "none": "ignore"}
_MODES = ("control", "readline")


@dataclass
class CommandLine:
    """What the options ask for; lists are in the order of the command line.

    `monitors` are a chardev's id or an address, and `control` (QMP) or `readline` (HMP);
    `serials` what `-serial` was given. `quits`: the process ends with its guest. `panic` is the
    PC's option `on_panic`, empty for what follows from `quits`.
    """

    name: str = ""
    uuid: str = ""
    debug_threads: bool = False
    paused: bool = False
    machine: Settings = field(default_factory=lambda: Settings("machine", "", {}))
    accelerators: list[str] = field(default_factory=list)
    cpu: str | None = None
    memory: Settings | None = None
    smp: Settings | None = None
    numa: list[Settings] = field(default_factory=list)
    objects: dict[str, Settings] = field(default_factory=dict)
    chardevs: dict[str, Settings] = field(default_factory=dict)
    monitors: list[tuple[str, str, str]] = field(default_factory=list)
    serials: list[str] = field(default_factory=list)
    devices: list[Settings] = field(default_factory=list)
    drives: list[Settings] = field(default_factory=list)
    block_devices: dict[str, Settings] = field(default_factory=dict)
    globals: list[Settings] = field(default_factory=list)
    fd_sets: dict[int, int] = field(default_factory=dict)
    kernel: str | None = None
    initrd: str | None = None
    append: str = ""
    firmware: str | None = None
    firmware_folders: list[str] = field(default_factory=list)
    reboot: bool = True
    quits: bool = True
    panic: str = ""
    prealloc: bool = False
    daemonize: bool = False
    pidfile: str | None = None
    no_defaults: bool = False
    console: bool = False
    wanted_text: str = ""


def parse_command_line(arguments: Sequence[str]) -> CommandLine:
    """Take the command line apart. Raises `CommandLineError`."""
    line = CommandLine()
    for option, value in _options(arguments):
        _take(line, option, value)
        if line.wanted_text:
            break
    return line


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    rest = iter(arguments)
    for argument in rest:
        name = argument.removeprefix("-").removeprefix("-")
        if not argument.startswith("-") or not name:
            raise CommandLineError(
                f"{argument}: disks are named by -drive file={argument},format=raw,if=virtio"
            )
        if name in table.REFUSED:
            takes_value, why = table.REFUSED[name]
            raise refused(name, next(rest, "") if takes_value else "", f"not supported: {why}")
        if name in table.UNUSED:
            takes_value = table.UNUSED[name][0]
        elif name in table.SERVED:
            takes_value = table.SERVED[name]
        else:
            raise CommandLineError(f"{argument}: invalid option")
        value = ""
        if takes_value:
            given = next(rest, None)
            if given is None:
                raise CommandLineError(f"{argument}: requires an argument")
            value = given
        yield name, value


def _take(line: CommandLine, option: str, value: str) -> None:
    match option:
        case "help" | "h":
            line.wanted_text = "help"
        case "version":
            line.wanted_text = "version"
        case "name":
            named = parse_settings(option, value, "guest")
            line.name = named.take("guest")
            line.debug_threads = named.switch("debug-threads")
            named.ignore({"process": ("*", "the process keeps its name")})
            named.done()
        case "uuid":
            try:
                line.uuid = str(UUID(value))
            except ValueError:
                raise refused(option, value, "failed to parse UUID string: wrong format") from None
        case "S":
            line.paused = True
        case "machine" | "M":
            _take_machine(line, value)
        case "accel":
            accel = parse_settings(option, value, "accel")
            line.accelerators.append(_accelerator(line, accel))
        case "enable-kvm":
            line.accelerators = ["kvm"]
        case "cpu":
            if value in ("help", "?"):
                line.wanted_text = "cpu"
            line.cpu = value
        case "m":
            line.memory = parse_settings(option, value, "size")
        case "smp":
            given = line.smp.values if line.smp is not None else {}
            line.smp = parse_settings(option, value, "cpus")
            line.smp.values = given | line.smp.values
        case "numa":
            line.numa.append(parse_settings(option, value, "type"))
        case "object":
            _take_object(line, parse_settings(option, value, "qom-type"))
        case "chardev":
            chardev = parse_settings(option, value, "backend")
            _take_id(chardev, line.chardevs, "chardev")
        case "mon":
            monitor = parse_settings(option, value, "chardev")
            where, mode = monitor.need("chardev"), monitor.take("mode", "readline")
            if mode not in _MODES:
                raise monitor.fail(f'unknown monitor mode "{mode}"')
            monitor.ignore({"id": ("*", ""), "pretty": ("*", "answers stay on one line")})
            monitor.done()
            line.monitors.append((f"chardev:{where}", mode, value))
        case "qmp" | "qmp-pretty":
            line.monitors.append((value, "control", value))
        case "monitor":
            line.monitors.append((value, "readline", value))
        case "serial":
            line.serials.append(value)
        case "device":
            if value in ("help", "?"):
                line.wanted_text = "device"
            line.devices.append(parse_settings(option, value, "driver"))
        case "drive":
            line.drives.append(parse_settings(option, value))
        case "blockdev":
            block = parse_settings(option, value, "driver")
            _take_id(block, line.block_devices, "block device", "node-name")
        case "global":
            line.globals.append(_global(value))
        case "add-fd":
            given_fd = parse_settings(option, value)
            number, file = given_fd.number("set"), given_fd.number("fd")
            given_fd.ignore({"opaque": ("*", "a note to whom it may concern")})
            given_fd.done()
            line.fd_sets[number] = file
        case "kernel":
            line.kernel = value
        case "initrd":
            line.initrd = value
        case "append":
            line.append = value
        case "bios":
            line.firmware = value
        case "L":
            line.firmware_folders.append(value)
        case "no-reboot":
            line.reboot = False
        case "no-shutdown":
            line.quits = False
        case "action":
            _take_actions(line, parse_settings(option, value))
        case "watchdog-action":
            _check_watchdog(option, value)
        case "daemonize":
            line.daemonize = True
        case "pidfile":
            line.pidfile = value
        case "nodefaults":
            line.no_defaults = True
        case "nographic":
            line.console = True
        case "display":
            if value.partition(",")[0] not in ("none", "type=none"):
                raise refused(option, value, "cpufw has no display: use -display none")
        case "mem-prealloc":
            line.prealloc = True
        case "rtc":
            clock = parse_settings(option, value)
            clock.ignore(
                {
                    "base": ("utc", "the guest's clock shows the host's time in UTC"),
                    "clock": ("host", "the guest's clock follows the host's"),
                    "driftfix": ("*", "KVM's timers catch up by themselves"),
                }
            )
            clock.done()
        case "boot":
            boot = parse_settings(option, value, "order")
            boot.ignore(
                {
                    "strict": ("*", "there is nothing else to boot from"),
                    "menu": ("off", "there is nothing to choose from"),
                    "order": ("*", "there is one thing to boot: the kernel or the firmware"),
                    "reboot-timeout": ("*", "firmware's own"),
                }
            )
            boot.done()
        case "audiodev":
            audio = parse_settings(option, value, "driver")
            if audio.take("driver") != "none":
                raise audio.fail("cpufw has no sound: use driver=none")
        case _ if option in table.UNUSED_VALUES:
            if value not in table.UNUSED_VALUES[option]:
                raise refused(option, value, f"not supported: {table.UNUSED[option][1]}")


def _take_machine(line: CommandLine, value: str) -> None:
    if value in ("help", "?"):
        line.wanted_text = "machine"
    given = parse_settings("machine", value, "type")
    accel = given.values.pop("accel", None)
    if accel is not None:
        line.accelerators = str(accel).split(":")
    line.machine.text = value
    line.machine.values.update(given.values)


def _accelerator(line: CommandLine, accel: Settings) -> str:
    name = accel.take("accel")
    if name in ("help", "?"):
        line.wanted_text = "accel"
    if name == "kvm":
        irqchip = accel.take("kernel-irqchip")
        if irqchip:
            line.machine.values["kernel-irqchip"] = irqchip
    accel.ignore(
        {
            "thread": ("*", "each vCPU has a thread"),
            "tb-size": ("*", "KVM translates nothing"),
            "one-insn-per-tb": ("*", "KVM translates nothing"),
            "dirty-ring-size": ("0", "cpufw follows dirty pages by KVM's bitmap"),
            "notify-vmexit": ("*", "cpufw watches its vCPUs itself: cpufw run --watchdog"),
        }
    )
    accel.done()
    return name


def _take_object(line: CommandLine, thing: Settings) -> None:
    _take_id(thing, line.objects, "object")


def _take_id(thing: Settings, known: dict[str, Settings], what: str, name: str = "id") -> None:
    identity = thing.need(name)
    if identity in known:
        raise thing.fail(f"Duplicate ID '{identity}' for {what}")
    known[identity] = thing


def _global(value: str) -> Settings:
    if value.startswith("driver=") or value.lstrip().startswith("{"):
        return parse_settings("global", value)
    where, equals, setting = value.partition("=")
    driver, dot, name = where.rpartition(".")
    if not equals or not dot:
        raise refused("global", value, "expected DRIVER.PROPERTY=VALUE")
    values = {"driver": driver, "property": name, "value": setting}
    return Settings("global", value, values)


def _take_actions(line: CommandLine, actions: Settings) -> None:
    reboot = actions.take("reboot", "reset" if line.reboot else "shutdown")
    shutdown = actions.take("shutdown", "poweroff" if line.quits else "pause")
    panic = actions.take("panic")
    _check_watchdog("action", actions.take("watchdog", "reset"))
    actions.done()
    for value, allowed in ((reboot, _REBOOT), (shutdown, _SHUTDOWN), (panic, ("", *_PANIC))):
        if value not in allowed:
            raise actions.fail(f"'{value}' is not one of {', '.join(filter(None, allowed))}")
    line.reboot, line.quits = reboot == "reset", shutdown == "poweroff"
    line.panic = _PANIC.get(panic, line.panic)


def _check_watchdog(option: str, value: str) -> None:
    known = ("reset", "shutdown", "poweroff", "inject-nmi", "pause", "debug", "none")
    if value not in known:  # there is no watchdog that could act, but a wrong word is wrong
        raise refused(option, value, f"expected one of {', '.join(known)}")
