"""Plain data as YAML for people to read; the YAML library takes longer to import than a command."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would cost start-up time
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_WIDTH = 100
_OTHER_THAN_TEXT = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


class Hexadecimal(int):
    """A number that is written in hexadecimal."""


def yaml_text(data: Mapping[str, Any]) -> str:
    """`data` as one YAML document: mappings in lines, lists in brackets, no line end after it."""
    return "\n".join(_mapping(data, ""))


def _mapping(data: Mapping[str, Any], margin: str) -> Iterator[str]:
    for key, value in data.items():
        begin = f"{margin}{_scalar(key)}:"
        if isinstance(value, dict) and value:
            yield begin
            yield from _mapping(value, margin + "  ")
        elif isinstance(value, list | tuple) and any(isinstance(each, dict) for each in value):
            yield begin
            for each in value:
                yield from _brackets(f"{margin}  -", each, margin + "    ")
        elif isinstance(value, list | tuple):
            yield from _brackets(begin, value, margin + "  ")
        else:
            yield f"{begin} {_flow(value) if isinstance(value, dict) else _scalar(value)}"


def _brackets(line: str, value: Any, margin: str) -> Iterator[str]:
    """`line` and after it `value` in brackets, in lines of the usual width."""
    for word in _flow(value).replace(", ", ",\0").split("\0"):
        if len(line) + 1 + len(word) > _WIDTH:
            yield line
            line = margin + word
        else:
            line += f" {word}"
    yield line


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        parts = (f"{_scalar(key, True)}: {_flow(each)}" for key, each in value.items())
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value, True)


def _scalar(value: Any, in_flow: bool = False) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Hexadecimal):
        return f"{value:#x}"
    text = str(value)
    if not isinstance(value, str) or _is_plain(text, in_flow):
        return text
    import json  # what is a string in JSON is one in YAML

    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def _is_plain(text: str, in_flow: bool) -> bool:
    """Whether YAML reads `text` as this string without quotes (YAML 1.2, 7.3.3)."""
    return (
        text[:1].isalpha()
        and text.isprintable()
        and text.lower() not in _OTHER_THAN_TEXT
        and not text.endswith((":", " "))
        and ": " not in text
        and " #" not in text
        and not (in_flow and any(character in ",[]{}" for character in text))
    )
