"""What the tools that compare definitions with a QEMU reference share."""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Step = Callable[[Path, Path], Iterator[str]]
"""From a reference folder and the folder of an architecture's definitions to lines."""


def load_json(folder: Path, name: str) -> Any:
    """The document `name` of the reference, plain or `.xz`."""
    packed = folder / f"{name}.xz"
    if packed.exists():
        return json.loads(lzma.decompress(packed.read_bytes()))
    return json.loads((folder / name).read_text())


def run(
    documentation: str | None,
    arch: str,
    documents: Sequence[str],
    compare: Step,
    write_missing: Step,
    arguments: list[str] | None,
) -> int:
    """Run a tool's command line; the exit status says whether the definitions match.

    `documents` are the files that a reference must have, `arch` the folder of the definitions.
    """
    parser = argparse.ArgumentParser(description=(documentation or "").splitlines()[0])
    parser.add_argument("reference", type=Path, metavar="REFERENCE_DIR")
    parser.add_argument("cpudefs", type=Path, metavar="CPUDEFS_DIR")
    parser.add_argument("--write", action="store_true", help="add what is missing")
    options = parser.parse_args(arguments)
    folder = options.cpudefs / arch
    for name in documents:
        if not any(options.reference.glob(f"{name}*")):
            parser.error(f"{options.reference} has no {name}")
    if not (folder / "features.yaml").exists():
        parser.error(f"{options.cpudefs} has no {arch}/features.yaml")
    if options.write:
        for line in write_missing(options.reference, folder):
            print(line)
    differences = list(compare(options.reference, folder))
    print("\n".join(differences) or "no difference")
    return 1 if differences else 0
