"""The second layer of checks: each document against the JSON schema of its kind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cpufw.definitions.document import Document, Problem
from cpufw.errors import nearest

SUFFIX = ".schema.json"


def schema_problems(document: Document, folders: Sequence[Path]) -> Iterator[Problem]:
    """Every violation of the schema of the document's `kind`, looked for in `folders`."""
    if not isinstance(document.data, dict):
        yield document.problem("a definition is a mapping with a 'kind'")
        return
    kinds = {file.name.removesuffix(SUFFIX): file for folder in folders for file in _files(folder)}
    if not document.kind:
        yield document.problem(f"'kind' is missing, expected one of {', '.join(sorted(kinds))}")
        return
    if document.kind not in kinds:
        near = nearest(document.kind, kinds)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(kinds))}"
        yield document.problem(f"kind '{document.kind}' has no schema; {hint}", ["kind"])
        return
    for error in _validator(kinds[document.kind]).iter_errors(document.data):
        yield from _explain(document, error)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []


@cache
def _validator(path: Path) -> Any:
    # jsonschema takes a tenth of a second to import: only compiling needs it.
    from jsonschema import Draft202012Validator

    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def _explain(document: Document, error: Any) -> Iterator[Problem]:
    where = list(error.absolute_path)
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        patterns = error.schema.get("patternProperties", {})
        for key in error.instance:
            if key not in known and not patterns:
                near = nearest(key, known)
                hint = f"; did you mean {near[0]}?" if near else ""
                yield document.problem(f"'{key}' is not a key here{hint}", [*where, key])
        return
    name = ".".join(map(str, where)) or document.kind
    yield document.problem(f"{name}: {error.message}", where)
