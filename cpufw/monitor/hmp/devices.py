"""HMP commands that add devices and objects and take them away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cpufw.monitor.errors import QmpError
from cpufw.monitor.hmp.command import hmp
from cpufw.monitor.plugging import plug

if TYPE_CHECKING:
    from cpufw.monitor.hmp.shell import Shell


_SIZE = re.compile(r"(\d{1,18})([KMGTkmgt]?)")
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def _options(text: str, first: str) -> dict[str, str]:
    """`foo,id=x,size=1M` as names and values; what has no name is `first`, or is on or off."""
    found: dict[str, str] = {}
    for number, part in enumerate(text.replace(",,", "\0").split(",")):
        name, equals, value = part.replace("\0", ",").partition("=")
        if not equals:
            name, value = (first, name) if number == 0 else (name, "on")
        if value or equals:
            found[name] = value
    if not found.get(first):
        raise QmpError(f"Parameter '{first}' is missing")
    return found


def _value(text: str) -> bool | int | str:
    """Text as QMP has it: `on` and `off`, numbers, sizes such as `1M`."""
    if text in ("on", "off"):
        return text == "on"
    if found := _SIZE.fullmatch(text):
        return int(found[1]) << _SHIFTS[found[2].upper()]
    return text


def _properties(shell: Shell, driver: str) -> str:
    found = shell.qmp("device-list-properties", typename=driver)
    lines = [f"  {each['name']}=<{each['type']}>" for each in found]
    return "\n".join([f"{driver} options:", *sorted(lines)])


@hmp("device_add", "driver[,prop=value][,...]")
def device_add(shell: Shell, options: str = "") -> str | None:
    """Plug a device, such as a CPU into the slot that its properties name."""
    if options in ("help", "?"):
        places = shell.qmp("query-hotpluggable-cpus")
        types = dict.fromkeys(place["type"] for place in places)
        return "\n".join(["CPU devices:", *(f'name "{each}"' for each in types)])
    given = _options(options, "driver")
    if "help" in given:
        return _properties(shell, given["driver"])
    driver, id, bus = given.pop("driver"), given.pop("id", ""), given.pop("bus", "")
    plug(shell.monitor, driver, id, given, bus)
    return None


@hmp("device_del", "device")
def device_del(shell: Shell, id: str) -> None:
    """Ask the guest to give a device up."""
    shell.monitor_command("device_del", {"id": id})


@hmp("object_add", "qom-type,id=id[,prop=value][,...]")
def object_add(shell: Shell, options: str) -> None:
    """Make an object, such as a socket to plug."""
    given = _options(options, "qom-type")
    shell.monitor_command("object-add", {name: _value(text) for name, text in given.items()})


@hmp("object_del", "id")
def object_del(shell: Shell, id: str) -> None:
    """Remove an object."""
    shell.monitor_command("object-del", {"id": id})
