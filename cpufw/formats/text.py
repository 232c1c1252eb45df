"""JSON, YAML and XML of others, read with the caution that other people's files ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cpufw.errors import FormatError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_CHARACTERS = 8 << 20
"""More than any description of a CPU needs: a dump of 512 CPUs has 4 million."""

MAX_YAML_CHARACTERS = 1 << 20
"""Kubernetes keeps no object of more than 1.5 MB; reading YAML is slow."""

MAX_DEPTH = 64

_TOO_DEEP = "it is nested too deeply"


def check_size(text: str, limit: int = MAX_CHARACTERS) -> None:
    """Raise `FormatError` if `text` is longer than any description of a CPU."""
    if len(text) > limit:
        raise FormatError(f"the text has more than {limit} characters: this is not a CPU")


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises `FormatError` with line and column."""
    check_size(text)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise FormatError(
            f"line {error.lineno}, column {error.colno}: this is not JSON: {_lower(error.msg)}"
        ) from None
    except ValueError:  # Python refuses to read a number of thousands of digits
        raise FormatError("this is not JSON of any format of ours: a number is too long") from None
    except RecursionError:
        raise FormatError(f"this is not JSON of any format of ours: {_TOO_DEEP}") from None


def parse_yaml(text: str) -> list[Any]:
    """Each document of a YAML text, or the value of a JSON text.

    YAML's scalars are text, or None where there is nothing; aliases and tags are refused. Raises
    `FormatError` with line and column.
    """
    if text.lstrip()[:1] in ("{", "["):
        return [parse_json(text)]
    check_size(text, MAX_YAML_CHARACTERS)
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        # Event by event, since ruamel.yaml takes minutes for a few thousand nested brackets.
        return _Builder(YAML(typ="safe", pure=True).parse(text)).documents()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = _lower(str(error.problem or error.context)).partition("\n")[0]
        raise FormatError(f"{where}this is not YAML: {problem}") from None
    except (YAMLError, ValueError) as error:
        raise FormatError(f"this is not YAML: {str(error).splitlines()[0]}") from None


class _Builder:
    """The values of a stream of YAML events."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events

    def documents(self) -> list[Any]:
        """The value of each document."""
        return [
            self._value(next(self._events), 0)
            for event in self._events
            if type(event).__name__ == "DocumentStartEvent"
        ]

    def _value(self, event: Any, depth: int) -> Any:
        kind = type(event).__name__
        if kind == "AliasEvent" or getattr(event, "tag", None):
            raise FormatError(f"{_place(event)}: aliases and tags are not read")
        if kind == "ScalarEvent":
            empty = event.style is None and event.value in ("", "~", "null")
            return None if empty else event.value
        if depth == MAX_DEPTH:
            raise FormatError(f"{_place(event)}: {_TOO_DEEP}")
        if kind == "SequenceStartEvent":
            return [self._value(each, depth + 1) for each in self._until("SequenceEndEvent")]
        found: dict[str, Any] = {}
        for event in self._until("MappingEndEvent"):
            key = self._value(event, depth + 1)
            if not isinstance(key, str) or key in found:
                raise FormatError(f"{_place(event)}: a key that is no text, or is there twice")
            found[key] = self._value(next(self._events), depth + 1)
        return found

    def _until(self, end: str) -> Iterator[Any]:
        for event in self._events:
            if type(event).__name__ == end:
                return
            yield event


def _place(event: Any) -> str:
    return f"line {event.start_mark.line + 1}, column {event.start_mark.column + 1}"


def parse_xml(text: str) -> Element:
    """The root of an XML text; entities and DTDs are refused.

    Raises `FormatError` with line and column.
    """
    check_size(text)
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except ParseError as error:
        line, column = error.position
        reason = str(error).partition(":")[0]
        raise FormatError(f"line {line}, column {column + 1}: this is not XML: {reason}") from None
    except DefusedXmlException:
        raise FormatError(
            "the XML has a document type declaration, which could hide anything: take it out"
        ) from None
    except ValueError as error:  # an encoding declaration that contradicts the text
        raise FormatError(f"this is not XML: {error}") from None
    return root


def dump_yaml(value: Any) -> str:
    """`value` as YAML in block style."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 100
    out = StringIO()
    yaml.dump(value, out)
    return out.getvalue()


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
