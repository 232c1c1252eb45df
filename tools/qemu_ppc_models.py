#!/usr/bin/env python3
"""Compare the PowerPC models in cpudefs/ with what a QEMU release answered, and import new ones.

    tools/qemu_ppc_models.py REFERENCE_DIR CPUDEFS_DIR [--write]

REFERENCE_DIR holds `ppc-models.json` and, as `tests/ppc/measure_qemu.py` writes it,
`ppc-facts.json` (each may be `.xz`). Every difference is one line on stdout; exit status 1 if
there is any, 2 on wrong use. `--write` adds what is missing (families as new files, members at the
end of theirs) and then compares again; it never changes a line that is there.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_tool import load_json, run
from ruamel.yaml import YAML

WIDTH = 100
WORDS = ("HWCAP", "HWCAP2")
# What the cores' manuals say and QEMU does not tell programs: its e500 is not told from Book E.
MANUALS: Mapping[str, frozenset[str]] = dict.fromkeys(
    ("e500v1", "e500v2", "e500mc", "e5500", "e6500"), frozenset({"booke"})
)


@dataclass(frozen=True)
class Member:
    """One model: what the reference or a definition says of it."""

    family: str
    archs: frozenset[str]
    pvr: int
    aliases: frozenset[str]
    cores: frozenset[str]


@dataclass(frozen=True)
class Facts:
    """What was measured of a model: its features by name, MMU and compatibility modes."""

    features: frozenset[str]
    mmu: str
    modes: tuple[str, ...]


# --- the reference -------------------------------------------------------------------------


def reference_members(reference: Path) -> dict[str, Member]:
    """Every model of the reference by name."""
    document = load_json(reference, "ppc-models.json")
    found = {}
    for name, model in document["ppc64"]["models"].items():
        aliases = document["ppc64"]["aliases"].items()
        cores = document["ppc64"]["cores"]
        found[name] = Member(
            model["family"].removesuffix("-family-powerpc64-cpu"),
            frozenset(arch for arch in ("ppc", "ppc64") if name in document[arch]["models"]),
            int(model["pvr"], 16),
            frozenset(alias for alias, target in aliases if target["alias-for"] == name),
            frozenset(
                kind
                for kind in ("spapr", "powernv")
                if f"{name}-{kind}-cpu-core" in cores[f"{kind}-cpu-core"]
            ),
        )
    return found


def measured(reference: Path, places: Mapping[str, str]) -> dict[str, Facts]:
    """What was measured of each model that QEMU can create; `places` of the features by name."""
    if not any(reference.glob("ppc-facts.json*")):
        return {}
    document = load_json(reference, "ppc-facts.json")
    return {
        name: Facts(
            frozenset(features_of(facts, places)),
            mmu_of(facts),
            tuple(mode for mode, version in document["compat"].get(name, {}).items() if version),
        )
        for name, facts in document["models"].items()
    }


def features_of(facts: Mapping[str, Any], places: Mapping[str, str]) -> Iterator[str]:
    """The features whose bit is set; the partition table register comes with radix translation."""
    words = dict(zip(WORDS, (int(word, 16) for word in facts["hwcap"]), strict=True))
    for name, place in places.items():
        word, _, bit = place.partition(":")
        if (word in words and words[word] >> int(bit) & 1) or (
            name == "radix" and "ptcr" in facts["sprs"]
        ):
            yield name


def mmu_of(facts: Mapping[str, Any]) -> str:
    """The kind of MMU that has these SPRs."""
    for spr, kind in (("zpr", "40x"), ("mmucr", "44x"), ("mas0", "book3e"), ("imiss", "swtlb")):
        if spr in facts["sprs"]:
            return kind if kind != "swtlb" else "hash32-swtlb"
    return "hash64" if int(facts["hwcap"][0], 16) >> 30 & 1 else "hash32"


# --- our definitions -----------------------------------------------------------------------


def load_families(cpudefs: Path) -> dict[str, Any]:
    """Every model file by the family's name."""
    loaded = (YAML(typ="safe").load(path) for path in sorted((cpudefs / "models").glob("*.yaml")))
    return {document["name"]: document for document in loaded}


def defined_members(families: Mapping[str, Any]) -> dict[str, Member]:
    """Every model of our definitions by name."""
    return {
        member["name"]: Member(
            name,
            frozenset([document["arch"]] if "arch" in document else ["ppc", "ppc64"]),
            member["pvr"],
            frozenset(member.get("aliases", ())),
            frozenset(member.get("cores", ())),
        )
        for name, document in families.items()
        for member in document["members"]
    }


def feature_places(cpudefs: Path) -> dict[str, str]:
    """Each feature's place by its name, in the order of features.yaml."""
    entries = YAML(typ="safe").load(cpudefs / "features.yaml")["features"]
    return {entry["name"]: entry["place"] for entry in entries}


# --- comparing -----------------------------------------------------------------------------


def compare(reference: Path, cpudefs: Path) -> Iterator[str]:
    """Every difference between the reference and the definitions, one sentence each."""
    families = load_families(cpudefs)
    theirs, ours = reference_members(reference), defined_members(families)
    for name in sorted(theirs.keys() | ours.keys()):
        if name not in ours:
            yield f"model {name} is missing"
        elif name not in theirs:
            yield f"model {name} is ours alone"
        else:
            yield from compare_member(name, ours[name], theirs[name])
    facts = measured(reference, feature_places(cpudefs))
    for name in sorted(facts.keys() & ours.keys()):
        yield from compare_facts(name, families[ours[name].family], facts[name])


def compare_member(name: str, ours: Member, theirs: Member) -> Iterator[str]:
    """How one model's definition differs from the reference."""
    if ours.family != theirs.family:
        yield f"{name}: family is {ours.family}, in the reference {theirs.family}"
    if ours.pvr != theirs.pvr:
        yield f"{name}: pvr is {ours.pvr:#010x}, in the reference {theirs.pvr:#010x}"
    for what in ("archs", "aliases", "cores"):
        mine, other = getattr(ours, what), getattr(theirs, what)
        for each in sorted(other - mine):
            yield f"{name}: {what}: {each} is in the reference only"
        for each in sorted(mine - other):
            yield f"{name}: {what}: {each} is in the definition only"


def compare_facts(name: str, family: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    """How a model differs from what was measured."""
    member = next(each for each in family["members"] if each["name"] == name)
    features = {*family["features"], *member.get("add", ())} - {*member.get("remove", ())}
    expected = facts.features | MANUALS.get(family["name"], frozenset())
    for feature in sorted(expected - features):
        yield f"{name}: features: {feature} was measured and is not in the definition"
    for feature in sorted(features - expected):
        yield f"{name}: features: {feature} is in the definition and was not measured"
    if family["mmu"] != facts.mmu:
        yield f"{name}: mmu is {family['mmu']}, measured {facts.mmu}"
    modes = tuple(family.get("compat-modes", ()))
    if modes != facts.modes:
        yield f"{name}: compat-modes are {listed(modes)}, measured {listed(facts.modes)}"


# --- writing -------------------------------------------------------------------------------


def write_missing(reference: Path, cpudefs: Path) -> Iterator[str]:
    """Create files for missing families and append missing members; say what was done."""
    families, places = load_families(cpudefs), feature_places(cpudefs)
    have, facts = defined_members(families), measured(reference, places)
    missing: dict[str, dict[str, Member]] = {}
    for name, member in reference_members(reference).items():
        if name not in have:
            missing.setdefault(member.family, {})[name] = member
    for family, members in sorted(missing.items()):
        path = cpudefs / "models" / f"{family}.yaml"
        ordered = sorted(members.items(), key=lambda item: (item[1].pvr, item[0]))
        if family not in families:
            known = [facts[name] for name, _ in ordered if name in facts]
            if not known:
                yield f"{family}: nothing was measured of it, write it by hand"
                continue
            path.write_text(family_text(family, ordered[0][1], known[0], places))
            yield f"{path.name} written: its description is yours to improve"
        text = path.read_text().rstrip("\n")
        path.write_text("\n".join([text, *(member_text(*item) for item in ordered), ""]))
        for name, _ in ordered:
            yield f"{path.name}: {name} added"


def family_text(family: str, first: Member, facts: Facts, places: Mapping[str, str]) -> str:
    """A family's file up to its members."""
    features = facts.features | MANUALS.get(family, frozenset())
    lines = [
        "# yaml-language-server: $schema=../../schema/ppc-model.schema.json",
        "kind: ppc-model",
        f"name: {scalar(family)}",
        f"description: PowerPC {family}",
        "source: QEMU, -cpu help, AT_HWCAP and the gdbstub's registers",
    ]
    if len(first.archs) == 1:
        lines.append(f"arch: {next(iter(first.archs))}")
    lines.append(f"mmu: {facts.mmu}")
    if facts.modes:
        lines.append(f"compat-modes: {listed(facts.modes)}")
    ordered = [name for name in places if name in features]
    lines.append(wrapped(f"features: {listed(ordered)}", "  "))
    return "\n".join([*lines, "members:", ""])


def member_text(name: str, member: Member) -> str:
    """One item of `members`."""
    text = f"  - {{name: {scalar(name)}, pvr: {member.pvr:#010x}"
    if member.aliases:
        text += f", aliases: {listed(map(scalar, sorted(member.aliases)))}"
    if member.cores:
        text += f", cores: {listed(sorted(member.cores, reverse=True))}"
    return wrapped(text + "}", "    ")


def wrapped(text: str, indent: str) -> str:
    """The text in lines of 100 columns."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def listed(names: Iterable[str] | Sequence[str]) -> str:
    """`[a, b]`."""
    return f"[{', '.join(names)}]"


def scalar(name: str) -> str:
    """A name as YAML takes it for text and not for a number."""
    return f"'{name}'" if re.fullmatch(r"[0-9][0-9_.]*(e[0-9]+)?", name) else name


def main(arguments: list[str] | None = None) -> int:
    """Run the tool; the exit status says whether the definitions match the reference."""
    return run(__doc__, "ppc", ("ppc-models.json",), compare, write_missing, arguments)


if __name__ == "__main__":
    sys.exit(main())
