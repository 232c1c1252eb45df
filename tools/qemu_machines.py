#!/usr/bin/env python3
"""Compare the machine types in cpudefs/ with what a QEMU release answered, or write them anew.

    tools/qemu_machines.py REFERENCE_DIR CPUDEFS_DIR [--write]

REFERENCE_DIR holds `x86-machines.json` (or `.xz`), CPUDEFS_DIR `machines.yaml`. Every difference
is one line on stdout; exit status 1 if there is any, 2 on wrong use. `--write` replaces the part
of the file from `compat:` on and the lists of versions, names and descriptions being ours, and
compares again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reference_tool import load_json
from ruamel.yaml import YAML

from cpufw.core.arch import MachineType
from cpufw.core.model import AliasRule
from cpufw.definitions.machines import machine_names, machine_type, version_key

FILE = "machines.yaml"
SUFFIX = "x86_64-cpu"
OURS = {"pc"}  # aliases that cpufw gives to a machine type of its own
UNKNOWN = {"x-remote", "none"}  # no machine for guests; cpufw's own `none`
GONE = {"Icelake-Client-x86_64-cpu"}  # QEMU still sets properties of a model that it dropped


def compat_of(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Type, property and value of the compat properties of x86 CPUs, in order."""
    return [
        (entry["qom-type"], entry["property"], _plain(entry["value"]))
        for entry in record["cpu-compat-props"]
        if entry["qom-type"].endswith(SUFFIX) and entry["qom-type"] not in GONE
    ]


def _plain(value: str) -> str:
    """`true` and `false` as `on` and `off`."""
    return {"true": "on", "false": "off"}.get(value, value)


def _number(value: str | None) -> str | int | None:
    """A number as a number, however it is written."""
    try:
        return int(value or "", 0)
    except ValueError:
        return value


def rule_of(name: str, reference: Mapping[str, Any]) -> AliasRule:
    """What the reference takes an unversioned name for on this machine type."""
    aliases = reference["alias-of-by-machine"][name]
    if not aliases:
        return AliasRule.NONE
    return AliasRule.FIRST if aliases["Haswell"] == "Haswell-v1" else AliasRule.NEWEST


def compare(reference: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    """Every difference, one sentence each."""
    theirs = {name: r for name, r in reference["machines"].items() if name not in UNKNOWN}
    aliases = {r["alias"] for r in theirs.values() if r["alias"]} - OURS
    known = set(machine_names(ours))
    yield from (
        f"machine type {name} is missing" for name in sorted((theirs.keys() | aliases) - known)
    )
    yield from (
        f"machine type {name} is ours alone" for name in sorted(known - theirs.keys() - aliases)
    )
    for name in sorted(theirs.keys() & known):
        found = machine_type(ours, name, SUFFIX)
        assert found is not None
        for what, mine, other in differences(found, theirs[name], rule_of(name, reference)):
            yield f"{name}: {what} is {mine}, in the reference {other}"


def differences(
    ours: MachineType, record: Mapping[str, Any], rule: AliasRule
) -> Iterator[tuple[str, Any, Any]]:
    """What, ours, theirs."""
    alias = record["alias"] if record["alias"] not in OURS else None
    default = record["default-cpu-type"].removesuffix(f"-{SUFFIX}")
    compat = {(each.type_name, each.name): each.value for each in ours.compat}
    wanted = {(type, name): value for type, name, value in compat_of(record)}
    yield from (
        (what, mine, other)
        for what, mine, other in (
            ("alias", ours.alias, alias),
            ("default-cpu", ours.default_cpu, default),
            ("max-cpus", ours.max_cpus, record["cpu-max"]),
            ("names", ours.alias_rule.value, rule.value),
        )
        if mine != other
    )
    for type, name in sorted(compat.keys() | wanted.keys()):
        mine, other = compat.get((type, name)), wanted.get((type, name))
        if _number(mine) != _number(other):
            yield f"{type}.{name}", mine, other


# --- writing -------------------------------------------------------------------------------


def compat_text(reference: Mapping[str, Any], family: str) -> str:
    """The `compat:` part: each version's own entries, newest first."""
    versions = sorted(
        (
            name.removeprefix(f"{family}-")
            for name in reference["machines"]
            if name.startswith(family)
        ),
        key=version_key,
        reverse=True,
    )
    lines = ["compat:"]
    before: list[tuple[str, str, str]] = []
    for version in versions:
        entries = compat_of(reference["machines"][f"{family}-{version}"])
        if entries[: len(before)] != before:
            raise ValueError(f"{family}-{version} does not have all that newer versions have")
        added = entries[len(before) :]
        if added:
            lines += [f"  - version: '{version}'", "    set:", *_set_lines(added)]
        before = entries
    return "\n".join([*lines, ""])


def _set_lines(entries: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    by_type: dict[str, list[str]] = {}
    for type, name, value in entries:
        key = type if type == SUFFIX else type.removesuffix(f"-{SUFFIX}")
        by_type.setdefault(key, []).append(f"{name}: {value}")
    for key in sorted(by_type, key=lambda each: (each != SUFFIX, each)):
        inner = by_type[key]
        line = f"      {key}: {{"
        for index, part in enumerate(inner):
            end = "}" if index == len(inner) - 1 else ","
            if len(line) + len(part) + 2 > 100:
                yield line.rstrip()
                line = "        "
            line += part + end + ("" if end == "}" else " ")
        yield line


def write(reference: Mapping[str, Any], path: Path) -> None:
    """Replace the file's `compat:` part."""
    head, _, _ = path.read_text().partition("compat:\n")
    path.write_text(head + compat_text(reference, "pc-q35"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reference", type=Path, metavar="REFERENCE_DIR")
    parser.add_argument("cpudefs", type=Path, metavar="CPUDEFS_DIR")
    parser.add_argument("--write", action="store_true", help="write the compat properties anew")
    options = parser.parse_args(arguments)
    reference, path = load_json(options.reference, "x86-machines.json"), options.cpudefs / FILE
    if options.write:
        write(reference, path)
    found = list(compare(reference, YAML(typ="safe").load(path)))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
