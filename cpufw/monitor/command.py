"""QMP commands: typed functions, and the table of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from cpufw.monitor.errors import QmpError
from cpufw.monitor.schema import check_members

if TYPE_CHECKING:
    from cpufw.monitor.monitor import Monitor
    from cpufw.monitor.session import Session

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Command:
    """One command: a function of the monitor and of the arguments, by their names on the wire.

    A parameter `session` is the client's own session, and no argument. `blocks`: it waits for
    the guest, a disk or a lock, and runs on the monitor's worker thread; the others run at once
    between two messages. `free_form`: what other arguments there are come as `**properties`.
    """

    name: str
    function: Callable[..., Any]
    blocks: bool = False
    allow_oob: bool = False
    features: tuple[str, ...] = ()

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        from cpufw.monitor.monitor import Monitor
        from cpufw.monitor.session import Session

        names = {"Monitor": Monitor, "Session": Session}
        return get_type_hints(self.function, localns=names, include_extras=True)

    @cached_property
    def arguments(self) -> dict[str, tuple[Any, bool]]:
        """Type and optionality of each argument, by its name on the wire."""
        return {
            _wire(name): (_type(self._hints[name]), given.default is not given.empty)
            for name, given in list(self._signature.parameters.items())[1:]
            if name != "session" and given.kind is not given.VAR_KEYWORD
        }

    @cached_property
    def returns(self) -> Any:
        """The type of the answer; NoneType for none."""
        return self._hints["return"]

    @cached_property
    def free_form(self) -> bool:
        """Whether it takes more arguments than it names."""
        kinds = [given.kind for given in self._signature.parameters.values()]
        return inspect.Parameter.VAR_KEYWORD in kinds

    def run(self, monitor: Monitor, session: Session | None, arguments: dict[str, Any]) -> Any:
        """The answer, in JSON's types. Raises `QmpError` or what the function raises."""
        known = self.arguments
        named = arguments
        more = {}
        if self.free_form:
            named = {name: value for name, value in arguments.items() if name in known}
            more = {name: value for name, value in arguments.items() if name not in known}
        checked = check_members(named, known)
        given = {_python(name): value for name, value in checked.items()} | more
        if "session" in self._signature.parameters:
            if session is None:
                raise QmpError(f"The command {self.name} needs a client of its own")
            given["session"] = session
        answer = self.function(monitor, **given)
        return {} if answer is None else answer


def _wire(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _python(name: str) -> str:
    return name.replace("-", "_")


def _type(hint: Any) -> Any:
    choices = [each for each in get_args(hint) if each is not NoneType]
    if NoneType in get_args(hint) and len(choices) == 1:
        return choices[0]
    return hint


COMMANDS: dict[str, Command] = {}
"""Every command, by name; filled when `cpufw.monitor.commands` is imported."""


def command(
    name: str, *, blocks: bool = False, allow_oob: bool = False, features: tuple[str, ...] = ()
) -> Callable[[_Function], _Function]:
    """Make the decorated function the command `name`."""

    def register(function: _Function) -> _Function:
        COMMANDS[name] = Command(name, function, blocks, allow_oob, features)
        return function

    return register
