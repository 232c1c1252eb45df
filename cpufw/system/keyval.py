"""The two ways in which QEMU's options write an object: `a=b,c.d=e` and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cpufw.core.qom import SWITCHES
from cpufw.system.errors import CommandLineError, refused

# What QEMU still takes without a value, and what it means.
_BARE = {"nowait": ("wait", "off"), "nodelay": ("nodelay", "on")}


@dataclass
class Settings:
    """The settings of one option, each taken once by the code that knows it.

    `option` and `text` are for messages; what nobody has taken when `done` is called is refused.
    """

    option: str
    text: str
    values: dict[str, Any] = field(default_factory=dict)

    def fail(self, why: str) -> CommandLineError:
        """An error that names the option."""
        return refused(self.option, self.text, why)

    def take(self, name: str, default: str = "") -> str:
        """The text of a setting."""
        value = self.values.pop(name, default)
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, (dict, list)):
            raise self.fail(f"Invalid parameter type for '{name}', expected: string")
        return str(value)

    def need(self, name: str) -> str:
        """The text of a setting that must be there."""
        if name not in self.values:
            raise self.fail(f"Parameter '{name}' is missing")
        return self.take(name)

    def switch(self, name: str, default: bool = False) -> bool:
        """A setting that is on or off."""
        value = self.values.pop(name, default)
        if isinstance(value, bool):
            return value
        if str(value) not in SWITCHES:
            raise self.fail(f"Parameter '{name}' expects 'on' or 'off'")
        return SWITCHES[str(value)]

    def number(self, name: str, default: int | None = None) -> int:
        """A setting that is a whole number."""
        value = self.need(name) if default is None else self.take(name, str(default))
        try:
            return int(value, 0)
        except ValueError:
            raise self.fail(f"Parameter '{name}' expects a number") from None

    def ignore(self, known: Mapping[str, tuple[str, str]]) -> None:
        """Take settings that change nothing here; each has the values that are true of cpufw.

        `known` gives values, separated by spaces or `*` for any, and the reason.
        """
        for name, (allowed, why) in known.items():
            if name not in self.values:
                continue
            value = self.take(name)
            if allowed != "*" and value not in allowed.split():
                raise self.fail(f"'{name}={value}' is not supported: {why}")

    def done(self) -> None:
        """Refuse what nobody took."""
        if self.values:
            raise self.fail(f"Invalid parameter '{next(iter(self.values))}'")


def parse_settings(option: str, text: str, implied: str = "") -> Settings:
    """The settings in `text`; the first may leave out its name where there is an `implied` one.

    A comma in a value is written twice. Raises `CommandLineError`.
    """
    if text.lstrip().startswith("{"):
        return Settings(option, text, _json(option, text))
    values: dict[str, Any] = {}
    for index, part in enumerate(_split(text)):
        name, equals, value = part.partition("=")
        if not equals:
            if index == 0 and implied:
                name, value = implied, part
            elif name in _BARE:
                name, value = _BARE[name]
            else:
                value = "on"
        if not name:
            raise refused(option, text, "Expected '=' after parameter name")
        values[name] = value
    return Settings(option, text, values)


def _json(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refused(option, text, f"JSON parse error, {error}") from None
    if not isinstance(value, dict):
        raise refused(option, text, "Expected a JSON object")
    flat: dict[str, Any] = {}
    _flatten(value.items(), "", flat)
    return flat


def _flatten(items: Iterable[tuple[str, Any]], before: str, into: dict[str, Any]) -> None:
    for name, value in items:
        if isinstance(value, dict):
            _flatten(value.items(), f"{before}{name}.", into)
        elif isinstance(value, list):
            _flatten(((str(i), each) for i, each in enumerate(value)), f"{before}{name}.", into)
        else:
            into[before + name] = value


def _split(text: str) -> list[str]:
    if not text:
        return []
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
