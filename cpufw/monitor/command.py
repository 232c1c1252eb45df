"""QMP commands: typed functions, and the table of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from cpufw.monitor.errors import QmpError
from cpufw.monitor.schema import Members, bare, check_members, check_object, members

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
    `boxed`: all the arguments come as one `TypedDict`, the only parameter.
    """

    name: str
    function: Callable[..., Any]
    blocks: bool = False
    allow_oob: bool = False
    features: tuple[str, ...] = ()
    boxed: bool = False

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
    def _parameters(self) -> dict[str, str]:
        """The parameter for each argument, by its name on the wire."""
        return {
            name.rstrip("_").replace("_", "-"): name
            for name, given in list(self._signature.parameters.items())[1:]
            if name != "session" and given.kind is not given.VAR_KEYWORD
        }

    @cached_property
    def arguments(self) -> Members:
        """Type and optionality of each argument, by its name on the wire.

        Of a boxed union: those that it always has.
        """
        if self.boxed:
            return members(self.argument_type)
        parameters = self._signature.parameters
        return {
            wire: (
                _type(self._hints[name]),
                parameters[name].default is not inspect.Parameter.empty,
            )
            for wire, name in self._parameters.items()
        }

    @cached_property
    def argument_type(self) -> Any:
        """The type of the arguments as a whole: a `TypedDict` or union if boxed, or `Members`."""
        if not self.boxed:
            return self.arguments
        (parameter,) = self._parameters.values()
        return self._hints[parameter]

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
        given = self._checked(arguments)
        if "session" in self._signature.parameters:
            if session is None:
                raise QmpError(f"The command {self.name} needs a client of its own")
            given["session"] = session
        answer = self.function(monitor, **given)
        return {} if answer is None else answer

    def _checked(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The function's parameters and their values."""
        if self.boxed:
            (parameter,) = self._parameters.values()
            return {parameter: check_object(arguments, *bare(self.argument_type))}
        known = self.arguments
        named, more = arguments, {}
        if self.free_form:
            named = {name: value for name, value in arguments.items() if name in known}
            more = {name: value for name, value in arguments.items() if name not in known}
        checked = check_members(named, known)
        return {self._parameters[name]: value for name, value in checked.items()} | more


def _type(hint: Any) -> Any:
    choices = [each for each in get_args(hint) if each is not NoneType]
    if NoneType in get_args(hint) and len(choices) == 1:
        return choices[0]
    return hint


COMMANDS: dict[str, Command] = {}
"""Every command, by name; filled when `cpufw.monitor.commands` is imported."""


def command(
    name: str,
    *,
    blocks: bool = False,
    allow_oob: bool = False,
    features: tuple[str, ...] = (),
    boxed: bool = False,
) -> Callable[[_Function], _Function]:
    """Make the decorated function the command `name`; `Command` says what the rest means."""

    def register(function: _Function) -> _Function:
        COMMANDS[name] = Command(name, function, blocks, allow_oob, features, boxed)
        return function

    return register
