#!/usr/bin/env python3
"""Compare the Arm models in cpudefs/ with what a QEMU release answered, and import new ones.

    tools/qemu_arm_models.py REFERENCE_DIR CPUDEFS_DIR [--write]

REFERENCE_DIR holds `arm-idregs.json` and `arm-measured.json` (each may be `.xz`). Every difference
is one line on stdout; exit status 1 if there is any, 2 on wrong use. `--write` adds files for the
models that are missing and then compares again; it never changes a file that is there. What a
reference cannot say (the architecture version, a description) is left to be written by hand.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_tool import load_json, run
from ruamel.yaml import YAML

from cpufw_arm.registers import GROUPS, SPACES, midr_name

WIDTH = 100
ARCHITECTURES = ("aarch64", "arm")
NUMBERS = ("cntfrq", "reset-cbar", "pmsav7-dregion", "rvbar")
UNIVERSAL = ("cfgend", "reset-hivecs")  # every model has them, or all but M-profile
SOFTWARE = ("MIDR", "MIDR_EL1", "CPUID", "CBAR", "CBAR_EL1", "CNTFRQ", "CNTFRQ_EL0")  # by property

_PATTERNS = {
    "registers": r"ID_.*|MVFR.*|CTR_EL0|DCZID_EL0|PMCEID.*",
    "caches": r"CLIDR|CCSIDR\d+|CTR|TCMTR|TLBTR|[DI]CACHE_CFG",
    "implementation": (
        r"FPSID|REVIDR_EL1|AIDR|ACTLR_EL1|SCTLR|MPIDR(_EL1)?|PMCR(_EL0)?|L2CTLR(_EL1)?|"
        r"CPUECTLR_EL1|CPUCFR_EL1|DBGDIDR|DBGDEVID\d?|MDRAR_EL1|H?MPUIR|MPU_TYPE|LORID_EL1|"
        r"ERRIDR_EL1|PMMIR_EL1|SMIDR_EL1"
    ),
}


@dataclass(frozen=True)
class Facts:
    """What a model is: `registers` all constant ID registers, zeros included."""

    midr: int
    registers: Mapping[str, int]
    features: frozenset[str]
    optional: frozenset[str]
    numbers: Mapping[str, int]


def group_of(register: str) -> str | None:
    """The group of a definition that holds `register`; None for what is no model's constant."""
    if register.endswith(("_S", "_RESERVED")) or register.startswith("RES_"):
        return None
    return next((g for g, pattern in _PATTERNS.items() if re.fullmatch(pattern, register)), None)


# --- the reference -------------------------------------------------------------------------


def reference_facts(reference: Path) -> dict[str, dict[str, Facts]]:
    """Architecture to model to facts, with all exception levels (machine `none`)."""
    answers = load_json(reference, "arm-idregs.json")
    measured = load_json(reference, "arm-measured.json")
    return {
        arch: {
            model: _m_profile(measured["m-profile"][model])
            if "regs" not in machines["none"]
            else _application(
                machines["none"],
                measured["plain"][arch][model]["none"],
                measured["mte"].get(model) if arch == "aarch64" else None,
            )
            for model, machines in answers[arch].items()
        }
        for arch in ARCHITECTURES
    }


def _application(answer: Mapping[str, Any], read: Mapping[str, str], mte: str | None) -> Facts:
    values = {**answer["regs"], **read}
    if mte is not None:  # the model's own level, which a machine without tag memory hides
        values["ID_AA64PFR1_EL1"] = mte
    registers = {name: int(value, 16) for name, value in values.items() if group_of(name)}
    return _facts(answer["props"], registers, ["mte"] if mte else [])


def _m_profile(answer: Mapping[str, Any]) -> Facts:
    registers = {n: int(v, 16) for n, v in answer["registers"].items() if group_of(n)}
    props = {**answer["props"], "midr": int(answer["registers"]["CPUID"], 16)}
    return _facts(props, registers, [])


def _facts(props: Mapping[str, Any], registers: Mapping[str, int], more: Iterable[str]) -> Facts:
    switches = {name: value for name, value in props.items() if is_feature(name, value)}
    return Facts(
        props["midr"],
        registers,
        frozenset(name for name, on in switches.items() if on),
        # A vector length that is off is one that the model does not have.
        frozenset(n for n, on in switches.items() if not on and not n[-1].isdigit()).union(more)
        | {n for n in switches if n.startswith("pauth-")},
        {name: props[name] for name in NUMBERS if name in props},
    )


def is_feature(name: str, value: Any) -> bool:
    """Whether a property is one of a model's features, and not of its place in a machine."""
    generic = ("backcompat-", "hotplug", "realized", "start-powered-off")
    return isinstance(value, bool) and not name.startswith(generic) and name not in UNIVERSAL


# --- our definitions -----------------------------------------------------------------------


def load_documents(cpudefs: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Every model by architecture and name."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for path in sorted((cpudefs / "models").glob("*.yaml")):
        document = YAML(typ="safe").load(path)
        archs = document["arch"]
        for arch in [archs] if isinstance(archs, str) else archs:
            for member in document.get("members", [{}]):
                whole = {**document, **member}
                found[arch, whole["name"]] = whole
    return found


def definition_facts(document: Mapping[str, Any]) -> Facts:
    """What a definition says, with the zeros that its architecture version implies."""
    registers = dict.fromkeys(SPACES[document["isa"]], 0)
    for group in GROUPS:
        registers.update(document.get(group, {}))
    return Facts(
        document["midr"],
        registers,
        frozenset(document["features"]),
        frozenset(document.get("optional", [])),
        {name: document[name] for name in NUMBERS if name in document},
    )


# --- comparing -----------------------------------------------------------------------------


def compare(reference: Path, cpudefs: Path) -> Iterator[str]:
    """Every difference between the reference and the definitions, one sentence each."""
    documents = load_documents(cpudefs)
    known = set()
    for arch, models in reference_facts(reference).items():
        for model, facts in models.items():
            known.add((arch, model))
            if (arch, model) in documents:
                yield from compare_model(f"{arch} {model}", documents[arch, model], facts)
            else:
                yield f"{arch} {model} is missing"
    for arch, model in sorted(documents.keys() - known):
        yield f"{arch} {model} is ours alone"


def compare_model(what: str, document: Mapping[str, Any], theirs: Facts) -> Iterator[str]:
    """How one definition differs from the reference."""
    ours = definition_facts(document)
    if ours.midr != theirs.midr:
        yield f"{what}: midr is {ours.midr:#x}, in the reference {theirs.midr:#x}"
    for kind, mine, other in (
        ("features", ours.features, theirs.features),
        ("optional", ours.optional, theirs.optional),
    ):
        for name in sorted(mine ^ other):
            side = "definition" if name in mine else "reference"
            yield f"{what}: {kind}: {name} is in the {side} only"
    for name in sorted(ours.registers.keys() | theirs.registers.keys()):
        a, b = ours.registers.get(name), theirs.registers.get(name)
        if a != b:
            yield f"{what}: {name} is {show(a)}, in the reference {show(b)}"
    for name in NUMBERS:
        a, b = ours.numbers.get(name), theirs.numbers.get(name)
        if a != b:
            yield f"{what}: {name} is {a}, in the reference {b}"


def show(value: int | None) -> str:
    """A register's value, or that there is none."""
    return "absent" if value is None else f"{value:#x}"


# --- writing -------------------------------------------------------------------------------


def write_missing(reference: Path, cpudefs: Path) -> Iterator[str]:
    """Create a file for each missing model; say what was done."""
    documents = load_documents(cpudefs)
    facts = reference_facts(reference)
    order = [
        entry["name"] for entry in YAML(typ="safe").load(cpudefs / "features.yaml")["features"]
    ]
    for model in sorted({model for models in facts.values() for model in models}):
        missing = [a for a in ARCHITECTURES if model in facts[a] and (a, model) not in documents]
        while missing:
            same = [a for a in missing if facts[a][model] == facts[missing[0]][model]]
            path = cpudefs / "models" / f"{model}.yaml"
            if path.exists():  # the same name, another CPU: a family whose only member has the name
                path = path.with_stem(f"{model}-{same[0]}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(model_text(path.stem, model, same, facts[same[0]][model], order))
            yield f"{path.name}: new; write its isa and description by hand"
            missing = [a for a in missing if a not in same]


def model_text(stem: str, model: str, archs: list[str], facts: Facts, order: list[str]) -> str:
    """A new model file."""
    isa = guess_isa(facts)
    lines = [
        "# yaml-language-server: $schema=../../schema/arm-model.schema.json",
        "kind: arm-model",
        f"name: {stem}",
        f"description: {model} as QEMU has it",
        "source: QEMU 10.0.2, registers read out",
        f"arch: {archs[0]}" if len(archs) == 1 else f"arch: [{', '.join(archs)}]",
        f"isa: {isa}",
        f"midr: {facts.midr:#010x}",
    ]
    for name in NUMBERS:
        if name in facts.numbers:
            lines.append(f"{name}: {facts.numbers[name]}")
    lines.append(flow_list("features", [name for name in order if name in facts.features]))
    if facts.optional:
        lines.append(flow_list("optional", [name for name in order if name in facts.optional]))
    implied = set(SPACES[isa])
    for group in GROUPS:
        values = {
            name: value
            for name, value in facts.registers.items()
            if group_of(name) == group and (value or name not in implied)
        }
        if values:
            lines.append(f"{group}:")
            lines += [f"  {name}: {values[name]:#x}" for name in sorted(values, key=natural)]
    if stem != model:
        lines += ["members:", f"  - name: {model}"]
    return "\n".join([*lines, ""])


def guess_isa(facts: Facts) -> str:
    """The version of the architecture whose ID registers fit best."""
    known = {*facts.registers, midr_name("armv8-a")}
    fitting = [isa for isa, space in SPACES.items() if set(space) <= known]
    return max(fitting, key=lambda isa: len(SPACES[isa]), default="armv4")


def natural(name: str) -> tuple[str | int, ...]:
    """A key that sorts by words and numbers: AArch64's registers first."""
    parts = re.split(r"(\d+)", name.replace("ID_AA64", "ID_0AA64"))
    return tuple(int(part) if part.isdigit() else part for part in parts)


def flow_list(head: str, names: Iterable[str]) -> str:
    """`head: [a, b, …]`, wrapped at 100 columns and indented below `head`."""
    return textwrap.fill(
        f"{head}: [{', '.join(names)}]", WIDTH, subsequent_indent="  ", break_on_hyphens=False
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the tool; the exit status says whether the definitions match the reference."""
    return run(
        __doc__, "arm", ("arm-idregs.json", "arm-measured.json"), compare, write_missing, arguments
    )


if __name__ == "__main__":
    sys.exit(main())
