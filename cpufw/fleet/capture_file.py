"""The file of a captured host: what is in it, in which order, and reading it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from cpufw.core.capture import HostCapture, Tsc, word_of
from cpufw.core.features import FeatureTable
from cpufw.definitions.document import Problem, read_document
from cpufw.definitions.schema import schema_problems
from cpufw.errors import CpufwError, DefinitionError

KIND = "host-capture"
SCHEMA = 1
"""The version of the format. A reader knows all versions up to its own."""

END = "..."
"""The last line of a whole file: YAML's own mark of a document's end."""

_NOWHERE = "unrecognised"  # the word of features that the table does not have
_SYSTEM = ("cpufw", "kernel", "microcode", "firecracker", "libvirt")


def dump(capture: HostCapture, table: FeatureTable) -> str:
    """`capture` as the text of its file; the same host always gives the same text."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.scalarint import HexCapsInt, HexInt
    from ruamel.yaml.scalarstring import LiteralScalarString

    content: dict[str, Any] = {"kind": KIND, "schema": SCHEMA, "arch": capture.arch}
    content["source"] = capture.source
    content |= {key: capture.system.get(key, "") for key in _SYSTEM}
    content["accelerator"] = capture.accelerator
    content["identity"] = {
        key: HexInt(value) if isinstance(value, int) and value > 0xFFFF else value
        for key, value in capture.identity.items()
        if value != ""
    }
    tsc = {"khz": capture.tsc.khz, "scaling": capture.tsc.scaling}
    content["tsc"] = {key: value for key, value in tsc.items() if value is not None}
    content["features"] = _by_word(capture.features, table)
    content["withheld"] = _by_word(capture.withheld, table)
    content["unknown"] = _flow(capture.unknown)
    content["msrs"] = msrs = CommentedMap()
    for index, value in sorted(capture.msrs.items()):
        msrs[HexCapsInt(index)] = HexInt(value, width=16)
        if capture.rules is not None and index in capture.rules.msr_names:
            msrs.yaml_add_eol_comment(capture.rules.msr_names[index], HexCapsInt(index), column=30)
    content["raw"] = {name: LiteralScalarString(text) for name, text in capture.raw.items()}
    content["capabilities"] = dict(sorted(capture.accelerator_capabilities.items()))
    yaml = YAML()
    yaml.width = 1 << 16  # one line a word: a change is then one line of a diff
    yaml.explicit_end = True
    text = StringIO()
    required = ("identity", "features")
    yaml.dump({key: value for key, value in content.items() if value or key in required}, text)
    return text.getvalue()


def _by_word(names: Iterable[str], table: FeatureTable) -> dict[str, Any]:
    words: dict[str, list[str]] = {}
    for name in names:
        word = word_of(table[name]) if name in table else _NOWHERE
        words.setdefault(word, []).append(name)
    return {word: _flow(members) for word, members in words.items()}


def _flow(names: Iterable[str]) -> Any:
    from ruamel.yaml.comments import CommentedSeq

    sequence = CommentedSeq(names)
    sequence.fa.set_flow_style()
    return sequence


def parse(path: Path, text: str, name: str, check_raw: Callable[[str, str], None]) -> HostCapture:
    """The captured host in cpufw's own file at `path`, which holds `text`.

    `check_raw(arch, text)` raises `DefinitionError` for registers that it cannot read. Raises
    `CpufwError` with the first problem of the file and where it is.
    """
    document = read_document(path, text)
    _raise_first(document.problems)
    data = document.data
    version = data.get("schema") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        made = f"; cpufw {data['cpufw']} wrote it" if data.get("cpufw") else ""
        message = f"schema {version} is newer than {SCHEMA}, the newest that this cpufw reads{made}"
        _raise_first([document.problem(message, ["schema"])])
    _raise_first(schema_problems(document, [Path(__file__).parent]))
    for key, registers in data.get("raw", {}).items():
        try:
            check_raw(data["arch"], registers)
        except DefinitionError as error:
            where = document.problem("", ["raw", key])
            line, message = line_of(str(error.problems[0]))
            _raise_first([Problem(where.file, where.line + line, where.column, message)])
    tsc = data.get("tsc", {})
    return HostCapture(
        name=name,
        arch=data["arch"],
        source=data["source"],
        features=_names(data["features"]),
        identity=data["identity"],
        accelerator=data.get("accelerator", ""),
        withheld=_names(data.get("withheld", {})),
        unknown=tuple(data.get("unknown", ())),
        tsc=Tsc(tsc.get("khz"), tsc.get("scaling")),
        msrs={int(index, 0): value for index, value in data.get("msrs", {}).items()},
        raw=data.get("raw", {}),
        system={key: str(data[key]) for key in _SYSTEM if key in data},
        accelerator_capabilities=data.get("capabilities", {}),
    )


def _names(words: Mapping[str, list[str]]) -> tuple[str, ...]:
    return tuple(name for names in words.values() for name in names)


def line_of(message: str) -> tuple[int, str]:
    """The line number that a message begins with (`line 7: …`) and the rest; 0 if none."""
    head, colon, rest = message.partition(": ")
    if colon and head.startswith("line ") and head[5:].isdigit():
        return int(head[5:]), rest
    return 0, message


def _raise_first(problems: Iterable[Problem]) -> None:
    found = sorted(problems)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise CpufwError(f"{found[0]}{more}")
