"""The second layer of checks: each document against the JSON schema of its kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cpufw.definitions.document import Document, Problem
from cpufw.errors import DefinitionError, nearest

SUFFIX = ".schema.json"


def schema_problems(document: Document, folders: Sequence[Path]) -> Iterator[Problem]:
    """Every violation of the schema of the document's `kind`, looked for in `folders`.

    Of two schemas for one kind the later folder's counts. Raises `DefinitionError` for a schema
    that is itself broken.
    """
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
    file = kinds[document.kind]
    validator = _validator(file.read_bytes())
    if isinstance(validator, tuple):
        raise DefinitionError([Problem(str(file), *validator)])
    for error in validator.iter_errors(document.data):
        yield from _explain(document, error)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []


@cache  # by content: a schema may change under a program that runs for long
def _validator(content: bytes) -> Any:
    """The validator for this schema, or line, column and what is wrong with it."""
    # jsonschema takes a tenth of a second to import: only compiling needs it.
    from jsonschema import Draft202012Validator, SchemaError, validators

    try:
        schema = json.loads(content)
        Draft202012Validator.check_schema(schema)
    except json.JSONDecodeError as error:
        return error.lineno, error.colno, f"JSON syntax: {error.msg}"
    except UnicodeDecodeError:
        return 1, 1, "it is not UTF-8 text"
    except SchemaError as error:
        return 1, 1, f"it is no JSON schema: {error.json_path}: {error.message}"
    extend: Any = validators.extend
    return extend(Draft202012Validator, {"properties": _properties})(schema)


def _properties(validator: Any, properties: Any, instance: Any, _: Any) -> Iterator[Any]:
    # jsonschema's own does not say which property the schema `false` refused.
    from jsonschema import ValidationError

    if isinstance(instance, dict):
        for name in properties.keys() & instance.keys():
            if properties[name] is False:
                yield ValidationError("it is not allowed here", path=[name])
            else:
                yield from validator.descend(
                    instance[name], properties[name], path=name, schema_path=name
                )


def _explain(document: Document, error: Any) -> Iterator[Problem]:
    where = list(error.absolute_path)
    if error.validator == "additionalProperties":
        known, patterns = (error.schema.get(k, {}) for k in ("properties", "patternProperties"))
        for key in error.instance:
            if key not in known and not any(re.search(pattern, key) for pattern in patterns):
                near = nearest(key, known)
                hint = f"; did you mean {near[0]}?" if near else ""
                yield document.problem(f"'{key}' is not a key here{hint}", [*where, key])
        return
    name = ".".join(map(str, where)) or document.kind
    yield document.problem(f"{name}: {_message(error)}", where)


def _message(error: Any) -> str:
    if error.validator == "not":
        return f"it must not be {json.dumps(error.validator_value)}"
    if error.validator in ("anyOf", "oneOf") and error.context:
        # What each alternative has to say, the same words only once.
        return ", or ".join(dict.fromkeys(_message(inner) for inner in error.context))
    return str(error.message)
