"""Plain data (see `cpufw.core.vmstate`) as the content of a record: JSON, bytes as base64."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

from cpufw.errors import StateError

_BYTES = "base64"


def encode(state: dict[str, Any]) -> bytes:
    """JSON text with `{"base64": "…"}` where `state` has bytes."""
    return json.dumps(state, default=_encoded, separators=(",", ":")).encode()


def decode(content: bytes, where: str) -> dict[str, Any]:
    """What was encoded. Raises `StateError` for anything else; `where` names it."""
    try:
        state = json.loads(content, object_hook=_decoded)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{where} is not a state: {error}") from None
    if not isinstance(state, dict):
        raise StateError(f"{where} is not a state")
    return state


def _encoded(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} is not plain data")
    return {_BYTES: b64encode(value).decode()}


def _decoded(value: dict[str, Any]) -> dict[str, Any] | bytes:
    if value.keys() == {_BYTES} and isinstance(value[_BYTES], str):
        return b64decode(value[_BYTES], validate=True)
    return value
