"""What QEMU 10.0.2 answered about s390x (tests/data/qemu10/README.md says how)."""

import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data" / "qemu10"


def unpack(name: str) -> dict[str, Any]:
    """A packed document."""
    document: dict[str, Any] = json.loads(lzma.decompress((DATA / f"{name}.xz").read_bytes()))
    return document


FACTS = unpack("s390x-features.json")
ANSWERS = unpack("s390x-answers.json")
MODELS: dict[str, Any] = FACTS["models"]
GROUPS: dict[str, list[str]] = FACTS["group_members"]


def written_out(names: Iterable[str]) -> set[str]:
    """The features of a list that names groups as well."""
    return {each for name in names for each in GROUPS.get(name, [name])}
