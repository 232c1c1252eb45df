#!/usr/bin/env python3
"""Compare the x86 models in cpudefs/ with what a QEMU release answered, and import new ones.

    tools/qemu_models.py REFERENCE_DIR CPUDEFS_DIR [--write]

REFERENCE_DIR holds `x86-models.json` and `x86-flag-bits.json` (each may be `.xz`). Every
difference is one line on stdout; exit status 1 if there is any, 2 on wrong use. `--write` adds
what is missing (families as new files, versions at the end of theirs) and then compares again;
it never changes a line that is there.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_tool import load_json, run
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Record = Mapping[str, Any]  # one model of the reference

WIDTH = 100
IMPLICIT = "hypervisor"  # on in every named model, so no definition lists it
NESTED = "vmx"  # the one feature that others come along with
HEX_KEYS = ("level", "xlevel", "xlevel2")
IDENTITY = (
    "vendor",
    "family",
    "model",
    "stepping",
    *HEX_KEYS,
    "avx10-version",
    "phys-bits",
    "model-id",
)
DEFAULTS: Mapping[str, str | int] = {"xlevel2": 0, "avx10-version": 0, "model-id": ""}
COMPUTED_WORDS = ("D.0.EAX",)  # XSAVE components: they follow from other features


@dataclass(frozen=True)
class Facts:
    """One model version written out.

    `identity` leaves out what has its usual value; `nested` is what comes along with VMX.
    """

    identity: Mapping[str, Any]
    features: frozenset[str]
    nested: frozenset[str]


# --- the reference -------------------------------------------------------------------------


def reference_facts(record: Record, features: Features) -> Facts:
    """What the reference says of a model."""
    listed = frozenset(map(features.canonical, record["features"])) - {IMPLICIT}
    vmx = record["vmx"]
    along = frozenset(map(features.canonical, vmx["features"])) - {NESTED}
    return Facts(
        unusual(record["identity-properties"], listed),
        listed,
        along | features.unnamed_in(vmx["words"], along),
    )


def unusual(identity: Mapping[str, Any], features: frozenset[str]) -> dict[str, Any]:
    """The identity keys without those that have their usual value."""
    usual = usual_identity(features)
    return {
        key: identity[key]
        for key in IDENTITY
        if key in identity and (key not in usual or identity[key] != usual[key])
    }


def usual_identity(features: frozenset[str]) -> dict[str, str | int]:
    """The identity of a model that does not say; physical address bits follow its features."""
    wide = 36 if features & {"pae", "pse36"} else 32
    return {**DEFAULTS, "phys-bits": 40 if "lm" in features else wide}


def families(models: Mapping[str, Record]) -> dict[str, dict[int, str]]:
    """Family name to {version number: name of that version}, e.g. {1: "Haswell-v1", …}."""
    found: dict[str, dict[int, str]] = {}
    for name in models:
        family, dash, number = name.rpartition("-v")
        if dash and number.isdigit():
            found.setdefault(family, {})[int(number)] = name
    return found


# --- our definitions -----------------------------------------------------------------------


class Features:
    """features.yaml: order, other names, and the features that QEMU leaves without a name."""

    def __init__(self, path: Path) -> None:
        self.entries: list[Mapping[str, Any]] = YAML(typ="safe").load(path)["features"]
        self.order = {entry["name"]: rank for rank, entry in enumerate(self.entries)}
        self._names: dict[str, str] = {name: name for name in self.order}
        for entry in self.entries:
            for alias in entry.get("aliases", {}).get("qemu", []):
                self._names[alias] = entry["name"]

    def canonical(self, name: str) -> str:
        """Our name for a QEMU property; an unknown one is returned as it is."""
        return self._names.get(name, name)

    def places(self, entry: Mapping[str, Any]) -> list[str]:
        """Where an entry's bits are, as `word:bit`."""
        place = entry["place"]
        return [place] if isinstance(place, str) else [str(part) for part in place]

    def unnamed_in(self, words: Mapping[str, str], named: Iterable[str]) -> set[str]:
        """Features whose bits are all set in `words` though no name in `named` says so."""
        known = set(named)
        return {
            entry["name"]
            for entry in self.entries
            if entry["name"] not in known
            and all(bit_of(words, place) for place in self.places(entry))
            and all(place.startswith("MSR.") for place in self.places(entry))
        }

    def sorted(self, names: Iterable[str]) -> list[str]:
        """The names in the order of features.yaml, unknown ones last."""
        return sorted(names, key=lambda name: (self.order.get(name, len(self.order)), name))

    def compare(self, flags: Mapping[str, Record]) -> Iterator[str]:
        """How features.yaml differs from the reference's property → bits table."""
        ours = {entry["name"]: set(self.places(entry)) for entry in self.entries}
        for name, flag in sorted(flags.items()):
            theirs = {f"{word}:{bit}" for word, bit in flag["bits"] if word not in COMPUTED_WORDS}
            if not theirs:
                continue
            mine = ours.get(self.canonical(name))
            if mine is None:
                yield f"feature {name} ({', '.join(sorted(theirs))}) is missing: write it by hand"
            elif mine != theirs:
                yield f"feature {name}: reference has {sorted(theirs)}, we have {sorted(mine)}"


def bit_of(words: Mapping[str, str], place: str) -> bool:
    """Whether the bit at `place` (`7.0.EBX:5`) is set in a model's words."""
    word, _, bit = place.rpartition(":")
    return bool(int(words.get(word, "0"), 16) >> int(bit) & 1)


def resolve(document: Mapping[str, Any], number: int) -> Facts | None:
    """Version `number` of a family written out, or None if the file has no such version.

    The top of the file is version 1; each entry in `versions` is a delta on that.
    """
    delta = next((v for v in document["versions"] if v["version"] == number), None)
    if delta is None:
        return None
    features = apply(document["features"], delta)
    nested = apply(document.get("with", {}).get(NESTED, []), delta.get("with", {}).get(NESTED, {}))
    return Facts(unusual({**document, **delta}, features), features, nested)


def apply(names: Iterable[str], delta: Mapping[str, Any]) -> frozenset[str]:
    """`names` with a delta's `add` and `remove` applied."""
    return frozenset((set(names) | set(delta.get("add", []))) - set(delta.get("remove", [])))


# --- comparing -----------------------------------------------------------------------------


def compare(reference: Path, cpudefs: Path) -> Iterator[str]:
    """Every difference between the reference and the definitions, one sentence each."""
    features = Features(cpudefs / "features.yaml")
    models = load_json(reference, "x86-models.json")["models"]
    yield from features.compare(load_json(reference, "x86-flag-bits.json")["flags"])
    known = families(models)
    documents = load_documents(cpudefs)
    for family, versions in sorted(known.items()):
        if family not in documents:
            yield f"family {family} is missing"
            continue
        yield from compare_family(documents[family], versions, models, features)
    for name in ("base", "max", "host"):
        if name not in documents:
            yield f"model {name} is missing"
    for family in sorted(set(documents) - set(known) - {"base", "max", "host"}):
        yield f"family {family} is ours alone"


def compare_family(
    document: Mapping[str, Any],
    versions: Mapping[int, str],
    models: Mapping[str, Record],
    features: Features,
) -> Iterator[str]:
    """How one family's file differs from the reference."""
    for number, name in sorted(versions.items()):
        ours = resolve(document, number)
        if ours is None:
            yield f"version {name} is missing"
            continue
        theirs = reference_facts(models[name], features)
        for key in IDENTITY:
            mine, other = ours.identity.get(key), theirs.identity.get(key)
            if mine != other:
                yield f"{name}: {key} is {scalar(mine, key)}, in the reference {scalar(other, key)}"
        for what, have, want in (
            ("features", ours.features, theirs.features),
            (f"with {NESTED}", ours.nested, theirs.nested),
        ):
            for feature in features.sorted(want - have):
                yield f"{name}: {what}: {feature} is in the reference only"
            for feature in features.sorted(have - want):
                yield f"{name}: {what}: {feature} is in the definition only"
        alias = next(v for v in document["versions"] if v["version"] == number).get("alias")
        expected = alias_of(name, document["name"], models)
        if alias != expected:
            yield f"{name}: alias is {alias}, in the reference {expected}"
    for extra in sorted({v["version"] for v in document["versions"]} - set(versions)):
        yield f"version {document['name']}-v{extra} is ours alone"


def alias_of(name: str, family: str, models: Mapping[str, Record]) -> str | None:
    """The other name that the reference gives a version, if any."""
    found = [n for n, record in models.items() if record["alias-of"] == name and n != family]
    return found[0] if found else None


def load_documents(cpudefs: Path) -> dict[str, Any]:
    """Every model file by the model's name."""
    loaded = (YAML(typ="safe").load(path) for path in sorted((cpudefs / "models").glob("*.yaml")))
    return {document["name"]: document for document in loaded}


# --- writing -------------------------------------------------------------------------------


def write_missing(reference: Path, cpudefs: Path) -> Iterator[str]:
    """Create files for missing families and append missing versions; say what was done."""
    features = Features(cpudefs / "features.yaml")
    meta, models = (load_json(reference, "x86-models.json")[key] for key in ("_meta", "models"))
    documents = load_documents(cpudefs)
    for family, versions in sorted(families(models).items()):
        path = cpudefs / "models" / f"{family}.yaml"
        facts = {n: reference_facts(models[name], features) for n, name in versions.items()}
        have = {version["version"] for version in documents.get(family, {}).get("versions", [])}
        if not have:
            path.parent.mkdir(parents=True, exist_ok=True)
            source = f"QEMU {meta['qemu']} query-cpu-model-expansion"
            path.write_text(family_text(family, facts[1], source, features))
            yield f"{path.name}: new, with the model-id as its description"
        for number in sorted(set(versions) - have):
            alias = alias_of(versions[number], family, models)
            append_version(path, version_text(number, alias, facts[1], facts[number], features))
            yield f"{path.name}: version {number} appended"
            if not models[versions[number]]["identity-properties"]["legacy-cache"]:
                yield f"{path.name}: version {number} has its own caches: measure and add them"


def family_text(family: str, first: Facts, source: str, features: Features) -> str:
    """A new model file up to and with the line `versions:`."""
    described = first.identity.get("model-id", family)
    top: dict[str, Any] = {
        "kind": "x86-model",
        "name": family,
        "description": described,
        "source": source,
    }
    lines = ["# yaml-language-server: $schema=../../schema/x86-model.schema.json"]
    lines += [f"{key}: {scalar(value, key)}" for key, value in {**top, **first.identity}.items()]
    lines.append(flow_list("features", features.sorted(first.features)))
    if first.nested:
        lines += ["with:", flow_list(f"  {NESTED}", features.sorted(first.nested))]
    return "\n".join([*lines, "versions:", ""])


def version_text(
    number: int, alias: str | None, first: Facts, facts: Facts, features: Features
) -> str:
    """One item of `versions`: what this version changes in version 1."""
    lines = [f"  - version: {number}"]
    if alias:
        lines.append(f"    alias: {scalar(alias)}")
    usual = usual_identity(facts.features)
    for key in IDENTITY:
        value = facts.identity.get(key)
        if value != first.identity.get(key):
            lines.append(f"    {key}: {scalar(usual[key] if value is None else value, key)}")
    lines += delta_lines("    ", first.features, facts.features, features)
    nested = delta_lines("        ", first.nested, facts.nested, features)
    if nested:
        lines += ["    with:", f"      {NESTED}:", *nested]
    return "\n".join(lines) + "\n"


def delta_lines(
    indent: str, before: frozenset[str], after: frozenset[str], features: Features
) -> list[str]:
    """The `add:` and `remove:` lines that turn one set into another."""
    return [
        flow_list(f"{indent}{key}", features.sorted(names))
        for key, names in (("add", after - before), ("remove", before - after))
        if names
    ]


def append_version(path: Path, text: str) -> None:
    """Put an item at the end of the file's `versions`, leaving every other byte alone."""
    lines = path.read_text().splitlines()
    document = YAML().load(path)  # round-trip mode: it knows the lines
    keys = list(document)
    after = keys[keys.index("versions") + 1 :]
    end = document.lc.key(after[0])[0] if after else len(lines)
    path.write_text("\n".join([*lines[:end], *text.splitlines(), *lines[end:], ""]))


def flow_list(head: str, names: Iterable[str]) -> str:
    """`head: [a, b, …]`, wrapped at 100 columns and indented below `head`."""
    indent = " " * (len(head) - len(head.lstrip()) + 2)
    return textwrap.fill(
        f"{head}: [{', '.join(names)}]",
        WIDTH,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def scalar(value: str | int | None, key: str = "") -> str:
    """A YAML scalar: hexadecimal for CPUID levels, quotes only where YAML needs them."""
    if value is None:
        return "absent"
    if isinstance(value, int):
        return f"{value:#x}" if key in HEX_KEYS and value > 9 else str(value)
    try:
        plain = YAML(typ="safe").load(f"a: {value}") == {"a": value}
    except YAMLError:
        plain = False
    return value if plain else "'" + value.replace("'", "''") + "'"


def main(arguments: list[str] | None = None) -> int:
    """Run the tool; the exit status says whether the definitions match the reference."""
    return run(__doc__, "x86", ("x86-models.json",), compare, write_missing, arguments)


if __name__ == "__main__":
    sys.exit(main())
