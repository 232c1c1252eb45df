#!/usr/bin/env python3
"""Make cpudefs/x86/libvirt.json: libvirt's names of x86 features, and what its models hold.

    tools/libvirt_map.py CPU-MAP.json           compare: exit status 1 if the file differs
    tools/libvirt_map.py CPU-MAP.json --write   make it anew

CPU-MAP.json is libvirt's CPU map as JSON: for each of its models the features it resolves to. In
the file a model is a delta on the model before it that differs least, so that people can read it.
A feature that libvirt names and cpufw has not stays in, so that it can be told from a typing error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "cpudefs" / "x86" / "libvirt.json"
VERSION = "libvirt 11.3.0"


def delta(model: Mapping[str, Any], before: Mapping[str, set[str]]) -> dict[str, Any]:
    """The record of one model: its base, what it adds to it and removes from it."""
    own = set(model["resolved"])
    base = min(before, key=lambda other: len(before[other] ^ own), default=None)
    if base is not None and len(before[base] ^ own) >= len(own):
        base = None
    held = before[base] if base is not None else set()
    record = {
        "vendor": model.get("vendor"),
        "base": base,
        "add": sorted(own - held),
        "remove": sorted(held - own),
    }
    return {key: value for key, value in record.items() if value}


def with_inherited(models: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The models with the vendor that each has from its parent."""
    whole: dict[str, dict[str, Any]] = {}

    def vendor(name: str) -> str | None:
        model = models[name]
        found = model.get("vendor")
        return found or (vendor(model["parent"]) if "parent" in model else None)

    for name, model in models.items():
        whole[name] = {"resolved": model["resolved"], "vendor": vendor(name)}
    return whole


def make(source: Mapping[str, Any]) -> str:
    """The file's text."""
    before: dict[str, set[str]] = {}
    lines = []
    for name, model in with_inherited(source["models"]).items():
        lines.append(f"    {json.dumps(name)}: {json.dumps(delta(model, before))}")
        before[name] = set(model["resolved"])
    vendors = {each["string"]: each["name"] for each in source["vendors"].values()}
    head = {
        "source": f"{VERSION}, cpu_map",
        "vendors": vendors,
        "features": sorted(source["features"]),
    }
    parts = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    parts.append('  "models": {\n' + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> int:
    """Compare or write."""
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--write"]):
        print(__doc__, file=sys.stderr)
        return 2
    text = make(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["x86"])
    if sys.argv[2:]:
        FILE.write_text(text, encoding="utf-8")
    elif not FILE.exists() or FILE.read_text(encoding="utf-8") != text:
        print(f"{FILE} is not what {sys.argv[1]} gives")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
