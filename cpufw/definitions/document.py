"""One YAML file as plain data, with the line and column of every value in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

Step = str | int
Position = tuple[int, int]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One broken rule and where: `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


@dataclass
class Document:
    """A YAML file's data; `problems` are its syntax errors and duplicate keys."""

    path: Path
    data: Any = None
    problems: list[Problem] = field(default_factory=list)
    _positions: dict[tuple[Step, ...], Position] = field(default_factory=dict)

    def problem(self, message: str, where: Sequence[Step] = ()) -> Problem:
        """A problem at the value that the keys and indexes of `where` lead to."""
        steps = tuple(where)
        while steps and steps not in self._positions:
            steps = steps[:-1]
        line, column = self._positions.get(steps, (1, 1))
        return Problem(str(self.path), line, column, message)

    @property
    def kind(self) -> str:
        """The document's `kind`, empty if it has none."""
        kind = self.data.get("kind") if isinstance(self.data, dict) else None
        return kind if isinstance(kind, str) else ""


def read_document(path: Path, text: str | None = None) -> Document:
    """The document in the file at `path`; what is wrong with it is in `problems`.

    `text` is what the file holds, if it has been read already.
    """
    document = Document(path)
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        document.problems.append(document.problem(f"cannot be read: {reason}"))
        return document
    try:
        # The pure parser: the C one is a YAML 1.1 parser that rejects `place: 7.0.EBX:5` in flow.
        root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        what = ", ".join(filter(None, (error.context, error.problem)))
        document.problems.append(Problem(str(path), line, column, f"YAML syntax: {what}"))
        return document
    except ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        what = f"the character U+{ord(text[error.position]):04X} is not allowed"
        document.problems.append(Problem(str(path), line, column, f"YAML syntax: {what}"))
        return document
    except RecursionError:
        document.problems.append(document.problem("YAML syntax: it is nested too deeply"))
        return document
    except YAMLError as error:
        document.problems.append(document.problem(f"YAML syntax: {error}"))
        return document
    if root is None:
        document.problems.append(document.problem("the file holds nothing"))
        return document
    if not _refuses_aliases(document, root):
        document.data = _construct(document, root, ())
        if document.data is None:
            document.problems.append(document.problem("the file holds nothing"))
    return document


def _refuses_aliases(document: Document, root: Node) -> bool:
    # An alias may lead back to itself, or make a small file a huge definition.
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            line, column = node.start_mark.line + 1, node.start_mark.column + 1
            message = f"definitions use no YAML aliases, but *{node.anchor} repeats this"
            document.problems.append(Problem(str(document.path), line, column, message))
            return True
        seen.add(id(node))
        if isinstance(node, MappingNode):
            waiting.extend(part for pair in node.value for part in pair)
        elif isinstance(node, SequenceNode):
            waiting.extend(node.value)
    return False


def _construct(document: Document, node: Node, where: tuple[Step, ...]) -> Any:
    position = (node.start_mark.line + 1, node.start_mark.column + 1)
    document._positions.setdefault(where, position)
    if isinstance(node, MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
            if not isinstance(key_node, ScalarNode):
                message = "a key must be a name, not a list or a mapping"
                document.problems.append(Problem(str(document.path), line, column, message))
                continue
            key = key_node.value
            if key in mapping:
                first = document._positions[(*where, key)]
                message = f"'{key}' is here twice, first on line {first[0]}"
                document.problems.append(Problem(str(document.path), line, column, message))
                continue
            # An error about a value is easiest found at its key.
            document._positions[(*where, key)] = (line, column)
            mapping[key] = _construct(document, value_node, (*where, key))
        return mapping
    if isinstance(node, SequenceNode):
        return [_construct(document, item, (*where, i)) for i, item in enumerate(node.value)]
    assert isinstance(node, ScalarNode)
    return _scalar(document, node, position)


def _scalar(document: Document, node: ScalarNode, position: Position) -> Any:
    tag = str(node.tag).rpartition(":")[2]
    text: str = node.value
    if tag == "int":
        try:
            return int(text.replace("_", ""), 0)
        except ValueError:
            return text
    if tag == "float":
        try:
            return float(text)
        except ValueError:  # .inf and .nan: no definition has a use for them
            return text
    if tag == "bool":
        return text.casefold() == "true"
    if tag == "null":
        return None
    if tag != "str":
        written = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        message = f"YAML tag {written} is not used in definitions; quote the value if it is text"
        document.problems.append(Problem(str(document.path), *position, message))
    return text
