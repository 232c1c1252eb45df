"""One conversation in HMP: which CPU is meant, how numbers are shown, and each line's answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cpufw.errors import CpufwError, ReasonedError
from cpufw.monitor.command import COMMANDS as QMP
from cpufw.monitor.errors import QmpError
from cpufw.monitor.hmp import cpus, devices, inspecting, running  # noqa: F401 - fill the table
from cpufw.monitor.hmp.command import ALIASES, COMMANDS, HmpCommand
from cpufw.monitor.hmp.line import Line, LineError
from cpufw.monitor.wording import worded

if TYPE_CHECKING:
    from cpufw.core.hotplug import Slot
    from cpufw.monitor.monitor import Monitor

_NAME = re.compile(r"\s*(\?|[A-Za-z_][\w-]*)")


class Shell:
    """Runs command lines on `monitor`; `cpu_index` is the CPU that is looked at."""

    def __init__(self, monitor: Monitor, cpu_index: int | None = None) -> None:
        import cpufw.monitor.commands  # noqa: F401 - fills the table of QMP commands

        self.monitor = monitor
        self._cpu_index = cpu_index
        if cpu_index is not None:
            self.select(cpu_index)
        self.letter, self.size = "x", 4
        """The form of numbers and the size of memory items last asked for."""
        self.ended = False

    @property
    def slot(self) -> Slot:
        """The slot that is looked at: the one selected, else the first with a CPU."""
        slots = self.monitor.machine.slots
        if self._cpu_index is not None and slots[self._cpu_index].cpu is not None:
            return slots[self._cpu_index]
        return next(slot for slot in slots if slot.cpu is not None)

    def select(self, index: int) -> None:
        """Look at the CPU `index` from now on. Raises `QmpError`."""
        slots = self.monitor.machine.slots
        if not 0 <= index < len(slots) or slots[index].cpu is None:
            raise QmpError("Parameter 'cpu-index' expects a CPU number")
        self._cpu_index = index

    def qmp(self, name: str, **arguments: Any) -> Any:
        """The answer of a QMP command; an underscore in an argument's name is a hyphen."""
        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.monitor_command(name, given)

    def monitor_command(self, name: str, arguments: dict[str, Any]) -> Any:
        """The answer of a QMP command, its arguments named as on the wire."""
        return QMP[name].run(self.monitor, None, arguments)

    def run(self, line: str) -> str:
        """What `line` says, lines ended by a newline; errors come as text too."""
        found = self._command(line)
        if found is None:
            words = line.split()
            named = words[:2] if words[:1] == ["info"] else words[:1]
            return f"unknown command: '{' '.join(named)}'\n" if words else ""
        command, behind = found
        try:
            said = command.run(self, Line(line[behind:], self._register))
        except LineError as error:
            said = f'{error}\nTry "help {command.name}" for more information'
        except ReasonedError as error:
            machine = self.monitor.machine
            said = f"Error: {worded(error, machine.cpu_class.architecture, machine.topology)}"
        except CpufwError as error:
            said = f"Error: {error}"
        return f"{said}\n" if said else ""

    def _command(self, line: str) -> tuple[HmpCommand, int] | None:
        """The command of `line`, and where its arguments begin."""
        found = _NAME.match(line)
        if found is None:
            return None
        name = ALIASES.get(found[1], found[1])
        second = _NAME.match(line, found.end())
        if name == "info" and second is not None:
            return self._at(f"info {second[1]}", second.end())
        return self._at(name, found.end())

    def _at(self, name: str, behind: int) -> tuple[HmpCommand, int] | None:
        return (COMMANDS[name], behind) if name in COMMANDS else None

    def _register(self, name: str) -> int:
        registers = self.monitor.machine.board.registers(self.slot)
        if name not in registers:
            raise LineError("unknown register")
        return registers[name]

    def completions(self, line: str) -> list[str]:
        """What the last word of `line` may become."""
        words = line.split()
        last = "" if not words or line[-1:].isspace() else words.pop()
        return sorted(each for each in self._candidates(words) if each.startswith(last))

    def _candidates(self, words: list[str]) -> list[str]:
        machine = self.monitor.machine
        if not words:
            return [*{name.partition(" ")[0] for name in COMMANDS}, *ALIASES]
        first = ALIASES.get(words[0], words[0])
        if first in ("info", "help") and len(words) == 1:
            plain = [name for name in COMMANDS if " " not in name]
            infos = [name.removeprefix("info ") for name in COMMANDS if " " in name]
            return infos if first == "info" else plain
        if first == "device_del":
            return [slot.cpu.device_id for slot in machine.slots if slot.cpu and slot.cpu.device_id]
        if first == "device_add":
            return [machine.cpu_class.type_name]
        if first == "cpu_set":
            if len(words) == 1:
                return [str(slot.index) for slot in machine.slots]
            return ["online", "offline"]
        if first.startswith("qom-"):
            return list(_paths(machine))
        return []


def _paths(node: Any) -> list[str]:
    return [node.path, *(path for _, child in node.children() for path in _paths(child))]
