"""What QEMU 10.0.2 answered about PowerPC CPUs (tests/data/qemu10)."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data" / "qemu10"


def unpack(name: str) -> Any:
    """One packed document of the reference."""
    return json.loads(lzma.decompress((DATA / f"{name}.json.xz").read_bytes()))


MODELS = unpack("ppc-models")
"""For each architecture: models with PVR, family and type; aliases; types of cores."""

FACTS = unpack("ppc-facts")
"""For each model: HWCAP words, register groups, SPRs; and the compatibility modes of some."""
