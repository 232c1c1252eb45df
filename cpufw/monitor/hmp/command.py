"""HMP commands: typed functions, and the tables of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NewType, TypeVar, get_type_hints

from cpufw.monitor.hmp.line import Format, Line, LineError

if TYPE_CHECKING:
    from cpufw.monitor.hmp.shell import Shell

Rest = NewType("Rest", str)
"""The rest of the line, as one argument."""

_Function = TypeVar("_Function", bound=Callable[..., str | None])


@dataclass(frozen=True)
class HmpCommand:
    """One command: a function of the shell and of what stands behind its name on the line.

    A parameter of type `str` is a word, `int` an expression, `bool` a flag of its first letter
    (`-a`), `Format` what follows a slash, `Rest` all that is left. `parameters` shows them to
    people; the first line of the function's docstring says what it does.
    """

    name: str
    parameters: str
    function: Callable[..., str | None]

    @cached_property
    def _wanted(self) -> list[tuple[str, Any, bool]]:
        from cpufw.monitor.hmp.shell import Shell

        hints = get_type_hints(self.function, localns={"Shell": Shell})
        given = list(inspect.signature(self.function).parameters.values())[1:]
        return [(each.name, hints[each.name], each.default is not each.empty) for each in given]

    @property
    def help(self) -> str:
        """One line: name, parameters, what it does."""
        text = (inspect.getdoc(self.function) or "").partition("\n")[0]
        return f"{self.name} {self.parameters} -- {text[:1].lower()}{text[1:].rstrip('.')}"

    def run(self, shell: Shell, line: Line) -> str:
        """What it says; empty for nothing. Raises `LineError` and what the function raises."""
        given: dict[str, Any] = {}
        for name, kind, optional in self._wanted:
            if kind is bool:
                given[name] = line.flag(name[0])
            elif kind is Format:
                given[name] = line.format()
            elif kind is Rest:
                given[name] = line.rest()
            elif not (optional and line.is_empty):
                given[name] = line.number() if kind is int else self._word(line)
        if not line.is_empty:
            raise LineError(f"{self.name}: extraneous characters at the end of line")
        return self.function(shell, **given) or ""

    def _word(self, line: Line) -> str:
        try:
            return line.word()
        except LineError as error:
            raise LineError(f"{self.name}: {error}") from None


COMMANDS: dict[str, HmpCommand] = {}
"""Every command by name; `info cpus` is one too."""

ALIASES = {"?": "help", "c": "cont", "s": "stop", "p": "print", "q": "quit"}


def hmp(name: str, parameters: str = "") -> Callable[[_Function], _Function]:
    """Make the decorated function the command `name`."""

    def register(function: _Function) -> _Function:
        COMMANDS[name] = HmpCommand(name, parameters, function)
        return function

    return register
