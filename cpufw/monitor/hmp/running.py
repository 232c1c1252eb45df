"""HMP commands about the run as a whole, and help."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cpufw.monitor.errors import QmpError
from cpufw.monitor.hmp.command import ALIASES, COMMANDS, HmpCommand, hmp

if TYPE_CHECKING:
    from cpufw.monitor.hmp.shell import Shell


@hmp("help", "[cmd]")
def help_(shell: Shell, name: str = "") -> str:
    """Show the commands, or what one does."""
    name = ALIASES.get(name, name)
    if name == "info":
        return info(shell)
    if not name:
        return _list([each for each in COMMANDS.values() if " " not in each.name])
    if name not in COMMANDS:
        return f"unknown command: '{name}'"
    return COMMANDS[name].help


@hmp("info", "[subcommand]")
def info(shell: Shell) -> str:  # noqa: ARG001 - every command has it
    """Show various information about the machine."""
    return _list([each for each in COMMANDS.values() if each.name.startswith("info ")])


def _list(commands: list[HmpCommand]) -> str:
    return "\n".join(each.help for each in sorted(commands, key=lambda each: each.name))


@hmp("info status")
def info_status(shell: Shell) -> str:
    """Show whether the guest runs."""
    status = shell.qmp("query-status")
    if status["running"]:
        return "VM status: running"
    why = f" ({status['status']})" if status["status"] != "paused" else ""
    return f"VM status: paused{why}"


@hmp("info version")
def info_version(shell: Shell) -> str:
    """Show the version of QEMU that this monitor speaks like, and cpufw's own."""
    version = shell.qmp("query-version")
    numbers = ".".join(str(version["qemu"][part]) for part in ("major", "minor", "micro"))
    return f"{numbers} {version['package']}"


@hmp("info name")
def info_name(shell: Shell) -> str:
    """Show the guest's name."""
    return str(shell.qmp("query-name").get("name", ""))


@hmp("info uuid")
def info_uuid(shell: Shell) -> str:
    """Show the guest's UUID."""
    return str(shell.qmp("query-uuid")["UUID"])


@hmp("info kvm")
def info_kvm(shell: Shell) -> str:
    """Show whether the guest runs on KVM."""
    kvm = shell.qmp("query-kvm")
    if not kvm["present"]:
        return "kvm support: not compiled"
    return f"kvm support: {'enabled' if kvm['enabled'] else 'disabled'}"


@hmp("info chardev")
def info_chardev(shell: Shell) -> str:
    """Show where serial ports and monitors lead."""
    return "\n".join(
        f"{each['label']}: filename={each['filename']}" for each in shell.qmp("query-chardev")
    )


@hmp("info block")
def info_block(shell: Shell) -> str:
    """Show the disks."""
    lines = []
    for each in shell.qmp("query-block"):
        name = each.get("device") or each.get("qdev", "")
        inserted = each.get("inserted", {})
        access = " (read-only)" if inserted.get("ro") else ""
        lines.append(f"{name}: {inserted.get('file', '[not inserted]')}{access}")
    return "\n".join(lines)


@hmp("info memory_size_summary")
def info_memory_size_summary(shell: Shell) -> str:
    """Show how much memory the guest has, in bytes."""
    size = shell.qmp("query-memory-size-summary")
    lines = [f"base memory: {size.get('base-memory', 0)}"]
    if "plugged-memory" in size:
        lines.append(f"plugged memory: {size['plugged-memory']}")
    return "\n".join(lines)


@hmp("info assists")
def info_assists(shell: Shell) -> str:
    """Show the instructions that cpufw finished for KVM, and devices that broke."""
    return "\n".join(shell.monitor.machine.report()) or "nothing to report"


@hmp("stop")
def stop(shell: Shell) -> None:
    """Hold the guest."""
    shell.qmp("stop")


@hmp("cont")
def cont(shell: Shell) -> None:
    """Let the guest go on."""
    shell.qmp("cont")


@hmp("system_reset")
def system_reset(shell: Shell) -> None:
    """Reset the machine."""
    shell.qmp("system_reset")


@hmp("system_powerdown")
def system_powerdown(shell: Shell) -> None:
    """Press the power button."""
    shell.qmp("system_powerdown")


@hmp("nmi")
def nmi(shell: Shell) -> None:
    """Give every CPU a non-maskable interrupt."""
    shell.qmp("inject-nmi")


@hmp("quit")
def quit_(shell: Shell) -> None:
    """End the guest and cpufw."""
    shell.ended = True
    shell.qmp("quit")


@hmp("qom-list", "path")
def qom_list(shell: Shell, path: str = "") -> str:
    """Show what an object of the tree has."""
    if not path:
        return "/"
    found = shell.qmp("qom-list", path=path)
    return "\n".join(f"{each['name']} ({each['type']})" for each in found)


@hmp("qom-get", "path property")
def qom_get(shell: Shell, path: str, name: str) -> str:
    """Show a property of an object."""
    return json.dumps(shell.qmp("qom-get", path=path, property=name), indent=4)


@hmp("qom-set", "[-j] path property value")
def qom_set(shell: Shell, json_value: bool, path: str, name: str, value: str) -> None:
    """Set a property of an object; with -j the value is JSON."""
    given: object = value
    if json_value:
        try:
            given = json.loads(value)
        except ValueError as error:
            raise QmpError(f"JSON parse error, {error}") from None
    shell.qmp("qom-set", path=path, property=name, value=given)


@hmp("info qom-tree", "[path]")
def info_qom_tree(shell: Shell, path: str = "/machine") -> str:
    """Show the objects of the machine."""
    from cpufw.monitor.commands.qom import object_at

    lines: list[str] = []

    def walk(node: object, depth: int) -> None:
        name = node.name if depth else node.path.rpartition("/")[2]  # type: ignore[attr-defined]
        lines.append(f"{'  ' * depth}/{name} ({node.type_name})")  # type: ignore[attr-defined]
        for _, child in sorted(node.children()):  # type: ignore[attr-defined]
            walk(child, depth + 1)

    walk(object_at(shell.monitor, path), 0)
    return "\n".join(lines)
