#!/usr/bin/env python3
"""Compare the s390x models in cpudefs/ with what a QEMU release answered, and import new ones.

    tools/qemu_s390x_models.py REFERENCE_DIR CPUDEFS_DIR [--write]

REFERENCE_DIR holds `s390x-features.json` (it may be `.xz`). Every difference is one line on
stdout; exit status 1 if there is any, 2 on wrong use. `--write` adds a file for each model that
is missing and then compares again; it never changes a file that is there.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reference_tool import load_json, run
from ruamel.yaml import YAML

BASE = "-base"  # the end of the names of those models that static expansions start from
TCG = ("qemu", "max")  # what they have depends on the accelerator: TCG in the reference
IDENTITY = ("machine-type", "generation", "ga")  # not in the reference: written by hand
WIDTH = 100


class Reference:
    """What QEMU answered: each model's features on and allowed, the groups, static expansions."""

    def __init__(self, folder: Path) -> None:
        document = load_json(folder, "s390x-features.json")
        self.groups: dict[str, list[str]] = document["group_members"]
        self.models: dict[str, Any] = document["models"]
        self.features = {name for name in document["desc"] if name not in self.groups}

    def on(self, model: str) -> frozenset[str]:
        """The features that a model has."""
        return self.expand(self.models[model]["on"])

    def allowed(self, model: str) -> frozenset[str]:
        """The features that a model can have."""
        return self.expand(self.models[model]["allow"])

    def deprecated(self) -> frozenset[str]:
        """The features that should no longer be used."""
        lists = (record["deprecated-props"] for record in self.models.values())
        return frozenset(name for names in lists for name in names)

    def static_base(self, model: str) -> str:
        """The model from which the static expansion of `model` starts."""
        name: str = self.models[model]["static"]["name"]
        return name

    def expand(self, names: Iterable[str]) -> frozenset[str]:
        """The features of a list that names groups as well."""
        return frozenset(each for name in names for each in self.groups.get(name, [name]))

    def in_order(self) -> list[str]:
        """Every model; what can do less comes first, and a `-base` before what starts from it."""
        return sorted(
            self.models,
            key=lambda name: (
                (name == "max") + (name in TCG),
                len(self.allowed(name)),
                not name.endswith(BASE),
                name,
            ),
        )


class Definitions:
    """The YAML files: features.yaml and the models, written out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        entries: list[dict[str, Any]] = load_yaml(folder / "features.yaml")["features"]
        self.features = {entry["name"]: entry for entry in entries}
        self.groups: dict[str, list[str]] = {}
        for entry in entries:
            if "group" in entry:
                self.groups.setdefault(entry["group"], []).append(entry["name"])
        files = sorted((folder / "models").glob("*.yaml"))
        self.documents: dict[str, dict[str, Any]] = {path.stem: load_yaml(path) for path in files}

    def on(self, model: str) -> frozenset[str]:
        """The features that a model has."""
        document = self.documents[model]
        base = document.get("base")  # it may be what is missing
        start = self.on(base) if base in self.documents else frozenset()
        added = self.expand([*document.get("features", ()), *document.get("add", ())])
        return (start | added) - self.expand(document.get("remove", ()))

    def value(self, model: str, key: str) -> Any:
        """An identity value of a model, its own or the one it starts with."""
        document = self.documents[model]
        base = document.get("base")
        if key in document or base not in self.documents:
            return document.get(key)
        return self.value(base, key)

    def allowed(self, model: str) -> frozenset[str]:
        """The features that came no later than the model."""
        level = (self.value(model, "generation"), self.value(model, "ga"))
        return frozenset(
            name
            for name, entry in self.features.items()
            if "since" in entry and tuple(map(int, entry["since"].split("."))) <= level
        )

    def expand(self, names: Iterable[str]) -> frozenset[str]:
        """The features of a list that names groups as well."""
        return frozenset(each for name in names for each in self.groups.get(name, [name]))

    def listed(self, names: frozenset[str]) -> list[str]:
        """Features in the order of features.yaml, complete groups by their own name."""
        whole = {group: members for group, members in self.groups.items() if names >= set(members)}
        inside = {name for members in whole.values() for name in members}
        rank = {name: rank for rank, name in enumerate(self.features)}
        first = {**rank, **{group: rank[members[0]] for group, members in whole.items()}}
        return sorted([*whole, *(names - inside)], key=lambda name: first.get(name, len(rank)))


# --- comparing -----------------------------------------------------------------------------


def compare(reference: Reference, ours: Definitions) -> Iterator[str]:
    """Every difference between the reference and the definitions, one sentence each."""
    for name in sorted(reference.features - set(ours.features)):
        yield f"feature {name} is missing: write it by hand"
    for name in sorted(set(ours.features) - reference.features):
        yield f"feature {name} is ours alone"
    for group in sorted({*reference.groups, *ours.groups}):
        want, have = reference.groups.get(group, []), ours.groups.get(group, [])
        yield from differences(f"group {group}", frozenset(have), frozenset(want))
    deprecated = frozenset(n for n, entry in ours.features.items() if entry.get("deprecated"))
    yield from differences("deprecated features", deprecated, reference.deprecated())
    for name in reference.in_order():
        if name in ours.documents:
            yield from compare_model(name, reference, ours)
        else:
            yield f"model {name} is missing"
    for name in sorted(set(ours.documents) - set(reference.models)):
        yield f"model {name} is ours alone"


def compare_model(name: str, reference: Reference, ours: Definitions) -> Iterator[str]:
    """How one model differs from the reference."""
    missing = [key for key in IDENTITY if ours.value(name, key) is None]
    if missing:
        yield f"{name}: write {', '.join(missing)} by hand"
        return
    yield from differences(f"{name}: features", ours.on(name), reference.on(name))
    yield from differences(f"{name}: can have", ours.allowed(name), reference.allowed(name))
    mine, other = ours.value(name, "static-base"), reference.static_base(name)
    if mine != other:
        yield f"{name}: static-base is {mine}, in the reference {other}"
    if bool(ours.documents[name].get("static")) != name.endswith(BASE):
        yield f"{name}: static is to be said of the models called …{BASE}, and of no others"


def differences(what: str, have: frozenset[str], want: frozenset[str]) -> Iterator[str]:
    """The features that only one of two sets has."""
    for name in sorted(want - have):
        yield f"{what}: {name} is in the reference only"
    for name in sorted(have - want):
        yield f"{what}: {name} is in the definition only"


# --- writing -------------------------------------------------------------------------------


def write_missing(reference: Reference, folder: Path) -> Iterator[str]:
    """A file for each model that is missing; say what was done."""
    ours = Definitions(folder)
    for name in reference.in_order():
        if name in ours.documents:
            continue
        document = new_document(name, reference, ours)
        path = folder / "models" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(document))
        ours.documents[name] = document
        yield f"{path.name}: new; write its description" + (
            " and " + ", ".join(IDENTITY) if name.endswith(BASE) else ""
        )


def new_document(name: str, reference: Reference, ours: Definitions) -> dict[str, Any]:
    """What the file of a model says: the model it starts from, and what is different there."""
    document: dict[str, Any] = {
        "kind": "s390x-model",
        "name": name,
        "description": f"{name}, to be described",
        "source": "QEMU 10.0 query-cpu-model-expansion",
    }
    if name.endswith(BASE):
        document["static"] = True
    if name == "max":
        document["dynamic"] = True
    wanted = reference.on(name)
    base = start_of(name, reference, ours)
    have = ours.on(base) if base else frozenset()
    if base:
        document["base"] = base
    changes = (("add" if base else "features", wanted - have), ("remove", have - wanted))
    document |= {key: ours.listed(names) for key, names in changes if names}
    if name.endswith(BASE) or ours.documents[base]["name"] != reference.static_base(name):
        document["static-base"] = reference.static_base(name)
    return document


def start_of(name: str, reference: Reference, ours: Definitions) -> str:
    """The model to start from: a twin with the same features, else the nearest that came before.

    Other models start from their own `-base`, which has their identity. "" for the first of all.
    """
    kin = [
        other
        for other in reference.in_order()
        if other in ours.documents and other.endswith(BASE) == name.endswith(BASE)
    ]
    twins = [other for other in kin if other not in TCG and ours.on(other) == reference.on(name)]
    if name == "max":
        return "qemu"
    if twins and name not in TCG:
        return twins[0]
    if not name.endswith(BASE):
        return reference.static_base(name)
    return min(kin, key=lambda other: len(ours.on(other) ^ reference.on(name)), default="")


def text_of(document: Mapping[str, Any]) -> str:
    """A model file; lists are wrapped at 100 columns."""
    lines = ["# yaml-language-server: $schema=../../schema/s390x-model.schema.json"]
    for key, value in document.items():
        shown = f"[{', '.join(value)}]" if isinstance(value, list) else str(value)
        shown = {"True": "true"}.get(shown, shown)
        lines += textwrap.wrap(
            f"{key}: {shown}",
            WIDTH,
            subsequent_indent="  ",
            break_on_hyphens=False,
            break_long_words=False,
        )
    return "\n".join([*lines, ""])


# --- files ---------------------------------------------------------------------------------


def load_yaml(path: Path) -> Any:
    """The document of one YAML file."""
    return YAML(typ="safe").load(path)


def main(arguments: list[str] | None = None) -> int:
    """Run the tool; the exit status says whether the definitions match the reference."""
    return run(
        __doc__,
        "s390x",
        ("s390x-features.json",),
        lambda reference, folder: compare(Reference(reference), Definitions(folder)),
        lambda reference, folder: write_missing(Reference(reference), folder),
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
