"""A folder of definitions for an architecture made up for these tests, with schemas of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpufw.definitions.compile import compile_folder, definition_files, problems_of
from cpufw.definitions.compiled import CompiledArch

NAMES = {"type": "array", "items": {"type": "string"}}

MODEL_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": ["kind", "name", "description"],
    "properties": {
        "kind": {"const": "lab-model"},
        "name": {"type": "string"},
        "description": {"type": "string"},
        "vendor": {"type": "string"},
        "speed": {"type": "integer", "minimum": 1},
        "dynamic": {"const": True},
        "features": NAMES,
        "add": NAMES,
        "remove": NAMES,
        "with": {"type": "object"},
        "base": {"type": "string"},
        "versions": {"type": "array", "items": {"type": "object", "required": ["version"]}},
        "arch": {"type": "string"},
        "aliases": NAMES,
        "members": {"type": "array", "items": {"type": "object", "required": ["name"]}},
    },
    "if": {"required": ["base"]},
    "then": {"properties": {"features": False}},
}
FEATURES_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["kind", "arch", "models", "features"],
    "properties": {
        "features": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "place"],
                "properties": {
                    "name": {"type": "string"},
                    "place": {"oneOf": [{"type": "string"}, NAMES]},
                    "requires": NAMES,
                    "aliases": {"type": "object", "additionalProperties": NAMES},
                },
                "patternProperties": {"^x-": {}},
            },
        }
    },
}
FEATURES = """\
kind: features
arch: lab
models: lab-model
features:
  - name: base
    place: w0:0
  - name: wide
    place: w0:1
    requires: [base]
  - name: wider
    place: [w0:2, w0:3]
    requires: [wide]
    aliases: {qemu: [broad]}
  - name: nested
    place: w1:0
"""
ONE = """\
kind: lab-model
name: one
description: The first
vendor: us
speed: 7
features: [base, wide]
versions:
  - version: 1
  - version: 2
    alias: one-wider
    description: wider than before
    speed: 8
    add: [wider]
"""


def make(folder: Path, **files: str) -> Path:
    """Put a definition folder at `folder`; keys are model names or `features`."""
    schemas = folder / "schema"
    schemas.mkdir(parents=True)
    (schemas / "lab-model.schema.json").write_text(json.dumps(MODEL_SCHEMA))
    (schemas / "features.schema.json").write_text(json.dumps(FEATURES_SCHEMA))
    for name, text in ({"features": FEATURES, "one": ONE} | files).items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def compiled(folder: Path, base: Mapping[str, CompiledArch] | None = None) -> CompiledArch:
    return compile_folder(folder, [folder / "schema"], base)["lab"]


def problems(folder: Path, base: Mapping[str, CompiledArch] | None = None) -> list[str]:
    """`file:line:column: message` of every problem, the folder's own path left out."""
    found = problems_of(definition_files(folder), [folder / "schema"], base or {})
    return [str(problem).replace(f"{folder}/", "") for problem in found]
