"""Write docs/models.md: what cpufw knows, beside what QEMU 10.0.2 knows.

    python tools/models_page.py [--check]

With `--check` nothing is written; the exit status is 1 if the page is out of date.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections.abc import Iterator
from pathlib import Path

from cpufw.core.model import Catalogue, CPUModel
from cpufw.framework import Framework

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
QEMU_NAMES = ROOT / "tests" / "data" / "qemu10" / "names.json.xz"

_INTRODUCTION = """\
# The models

<!-- Written by tools/models_page.py; a test compares it with the definitions. -->

A *name* is whatever `--cpu` takes: a model, one of its versions, or an alias of either. The names \
are compared with what QEMU 10.0.2 answers to `query-cpu-definitions`; where values differ from \
QEMU's, [differences.md](differences.md) says so and why.
"""


def main() -> None:
    """Write the page, or check it."""
    page = models_page()
    if sys.argv[1:] == ["--check"]:
        current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        if current != page:
            sys.exit("docs/models.md is out of date: run python tools/models_page.py")
    else:
        PAGE.write_text(page, encoding="utf-8")


def models_page() -> str:
    """The page's text, from the definitions that come with cpufw."""
    framework = Framework(user=False)
    qemu: dict[str, list[str]] = json.loads(lzma.decompress(QEMU_NAMES.read_bytes()))
    catalogues = [framework.catalogue(arch) for arch in qemu if arch in framework.architectures]
    lines = [
        _INTRODUCTION,
        "| architecture | names | families | versions | aliases | features | in QEMU only "
        "| in cpufw only |",
        "|---|---|---|---|---|---|---|---|",
        *(_summary(catalogue, set(qemu[catalogue.arch])) for catalogue in catalogues),
    ]
    for catalogue in catalogues:
        lines += [
            "",
            f"## {catalogue.arch}",
            "",
            "| family | its names | what it is |",
            "|---|---|---|",
        ]
        lines += _families(catalogue)
    return "\n".join(lines) + "\n"


def _summary(catalogue: Catalogue, qemu: set[str]) -> str:
    models = list(catalogue)
    names = {model.name for model in models}
    versions = [model for model in models if model.version is not None]
    aliases = [model for model in models if model.alias_of and model.name != model.family]
    cells = (
        catalogue.arch,
        len(models),
        len({model.family for model in models}),
        len(versions),
        len(aliases),
        len(catalogue.table),
        ", ".join(sorted(qemu - names)) or "none",
        ", ".join(sorted(names - qemu)) or "none",
    )
    return f"| {' | '.join(map(str, cells))} |"


def _families(catalogue: Catalogue) -> Iterator[str]:
    families: dict[str, list[CPUModel]] = {}
    for model in catalogue:
        families.setdefault(model.family, []).append(model)
    for family, members in families.items():
        names = ", ".join(f"`{model.name}`" for model in members)
        first = next((model for model in members if model.name == family), members[0])
        deprecated = " (deprecated)" if first.deprecated else ""
        yield f"| {family} | {names} | {first.description}{deprecated} |"


if __name__ == "__main__":
    main()
